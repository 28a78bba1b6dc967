"""Successive halving against the clock: all recipes on few samples, the best on more, and gradient steps at last.

Source: Jamieson and Talwalkar 2016 (successive halving). A stage gets a part of the time that is left, and as many
of the best recipes as fit into it; where the time does for all of them, all go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from onnxprune.pipelines.auto_goal import AIM, AutoGoal
from onnxprune.pipelines.auto_recipes import Recipe, is_roundable, is_rounded
from onnxprune.pipelines.auto_trials import STOPPED, AutoTrial, Bid

# The first stages use this part of the samples; a first training takes so many times as long as a trial without.
PART, FIRST_TRAINING = 4, 2
# Fewest samples of a stage, and stages on all of them that correct the budgets.
FEWEST, CORRECTIONS = 32, 2
# Further stages where an interval is halved.
BISECTIONS = 6
# A stage that tries what is new gets one of so many parts of the time that is left.
EXPLORING = 2
# Recipes with nothing to turn that are tried before all others.
FIXED = 3
# Gradient steps of the stages of training.
TRAINING = (32, 128, 512, 2048)
# Shares of the budget at which the best recipe is tried besides, for the front.
ASIDE = (0.75, 1.3)
# What a recipe is asked for first without a budget.
HALF = 0.5
# Recipes that go on at most into the stages of training, and that are combined with whole numbers besides the first.
TRAINED, COMBINED = 3, 2
# The time of a trial rises with its samples by this power: tracing, proofs and times do not depend on them.
SCALING = 0.7
# What is predicted of a recipe's time is taken for so many times as much: others use the machine, too.
CAUTION = 1.2
# Whole numbers that leave more of the cost are not worth a combination.
SAVING = 0.9
# Two shares that differ by less are the same.
SAME = 0.005

Perform = Callable[[Sequence[Bid]], Iterator[tuple[int, AutoTrial]]]


@dataclass
class TimeLeft:
    """The time that was given.

    Attributes:
        seconds: all of it.
        clock: gives seconds.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.clock()

    @property
    def left(self) -> float:
        """Seconds that are left; never below 0."""
        return max(0.0, self.seconds - (self.clock() - self.begun))


@dataclass
class Halving:
    """Trials of one search, stage by stage.

    Attributes:
        goal: what is to be reached.
        time: what is left of it.
        samples: of the data that steps use; 0 without data.
        width: bids that are done at the same time.
        trials: all trials, in the order in which they were finished.
    """

    goal: AutoGoal
    time: TimeLeft
    samples: int = 0
    width: int = 1
    trials: list[AutoTrial] = field(default_factory=list)
    _perform: Perform | None = None
    _done: dict[str, list[AutoTrial]] = field(default_factory=dict)
    _known: dict[str, Recipe] = field(default_factory=dict)
    # Name of a recipe that ends in whole numbers -> what is before, and what rounds.
    _parts: dict[str, tuple[Recipe, Recipe]] = field(default_factory=dict)

    def run(self, perform: Perform, fixed: Sequence[Recipe], turned: Sequence[Recipe]) -> list[AutoTrial]:
        """Try recipes until nothing is left to try, or the time is up.

        Args:
            perform: does bids, and gives (index, trial) as they are finished.
            fixed: those with nothing to turn, which tell what others need.
            turned: the others.

        Returns:
            All trials.
        """
        self._perform = perform
        few = self.samples // PART if self.samples // PART >= FEWEST else self.samples
        # What tells most comes first, for searches with little time: one way to cut, one to round, and both.
        self._explore(fixed[:FIXED], few)
        front = [*turned[:1], *self._combined(fixed, turned[:1])]
        self._explore(front, few)
        self._explore([*turned[1:], *fixed[FIXED:]], few)
        combined = self._combined(fixed, self._alive(turned[1:])[:COMBINED])
        self._explore(combined, few)
        useful = [r for r in fixed if r.name in self._done and self.goal.fits(self._last(r), AIM)]
        known = [r for r in (*front, *turned[1:], *combined, *useful) if r.name in self._done]
        self._correct(known, few)
        self._refine(known)
        return self.trials

    def _explore(self, recipes: Sequence[Recipe], samples: int) -> None:
        """Try recipes for the first time, as long as the best can still be made with all samples."""
        known = [r for r in self._alive([*self._known.values()]) if self.goal.fits(self._last(r), AIM)]
        best = next(iter(known), None)
        reserve = 0.0 if best is None else self.predicted(self._bid(best, self.samples))
        self._stage([self._bid(recipe, samples) for recipe in recipes], EXPLORING, reserve=reserve)

    def _correct(self, recipes: Sequence[Recipe], samples: int) -> None:
        """Ask again where the budget was missed: costs depend on samples as good as not at all."""
        missed = [r for r in self._alive(recipes) if r.dial is not None and not self.goal.fits(self._last(r))]
        missed.sort(key=lambda recipe: self.goal.rank(self._last(recipe), math.inf))
        self._explore(missed[: COMBINED + 1], samples)

    def _refine(self, recipes: Sequence[Recipe]) -> None:
        """Try the best recipes on all samples, correct what they are asked for, and train them."""
        for number in range(1 + (CORRECTIONS if self.goal.most is not None else BISECTIONS)):
            self._stage(self._bids(recipes, self.samples), max(2, 4 - number))
        self._train([recipe for recipe in recipes if recipe.dial is not None])
        self._stage(self._aside(recipes), 1, aside=True)

    def _alive(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """The recipes that were tried and have not failed, the best first."""
        known = [r for r in recipes if r.name in self._done and not self._last(r).problem]
        return sorted(known, key=lambda recipe: self.goal.rank(self._last(recipe), AIM))

    def _last(self, recipe: Recipe) -> AutoTrial:
        return self._done[recipe.name][-1]

    def _bids(self, recipes: Sequence[Recipe], samples: int, training: int = 0) -> list[Bid]:
        """What is to be tried of those recipes that go on, as far as it was not."""
        bids = [self._bid(recipe, samples, training) for recipe in self._alive(recipes)]
        return [bid for bid in bids if self._is_new(bid)]

    def _bid(self, recipe: Recipe, samples: int, training: int = 0) -> Bid:
        if recipe.dial is None:
            return Bid(recipe, None, samples)
        first = HALF if self.goal.most is None else self.goal.most
        if recipe.name in self._parts and self.goal.most is not None:
            first /= self.goal.cost_of(self._last(self._parts[recipe.name][1]))
        tried = [trial for trial in self._done.get(recipe.name, []) if not trial.problem]
        share = self.goal.next_share(tried, min(1.0, first), (samples, training))
        return Bid(recipe, share, samples, training)

    def _combined(self, fixed: Sequence[Recipe], turned: Sequence[Recipe]) -> list[Recipe]:
        """Recipes that end in the best of the whole numbers, where these save something and do not do alone."""
        rounded = [r for r in fixed if is_rounded(r) and r.name in self._done and not self._last(r).problem]
        lacking = [r for r in rounded if self.goal.cost_of(self._last(r)) < SAVING]
        if self.goal.most is not None:
            lacking = [r for r in lacking if not self.goal.fits(self._last(r))]
        lacking.sort(key=lambda recipe: self.goal.rank(self._last(recipe), math.inf))
        made = list[Recipe]()
        for last in lacking[:1]:
            for recipe in filter(is_roundable, turned):
                made.append(recipe.then(last))
                self._parts[made[-1].name] = (recipe, last)
        return made

    def _is_new(self, bid: Bid) -> bool:
        """Whether nothing like it was tried."""
        return not any(
            (trial.samples, trial.training) == (bid.samples, bid.training)
            and abs((trial.share or 0.0) - (bid.share or 0.0)) < SAME
            for trial in self._done.get(bid.recipe.name, [])
        )

    def _aside(self, recipes: Sequence[Recipe]) -> list[Bid]:
        """The best recipe with a smaller and a larger budget."""
        if self.goal.most is None:
            return []
        best = next(iter(self._alive([recipe for recipe in recipes if recipe.dial is not None])), None)
        if best is None:
            return []
        share = self._last(best).share or self.goal.most
        bids = [Bid(best, share * factor, self.samples) for factor in ASIDE if share * factor < 1]
        return [bid for bid in bids if self._is_new(bid)]

    def _train(self, recipes: Sequence[Recipe]) -> None:
        """Gradient steps for the best recipes, more and more of them, as long as that makes any of them better."""
        if not self.samples:
            return
        best = self._alive(recipes)[:TRAINED]
        for recipe in best:
            # What is known of the recipe without steps says what it is asked for.
            self._done[recipe.trained(1).name] = [t for t in self._done[recipe.name] if not t.problem]
        for number, steps in enumerate(TRAINING):
            before = self._best_rank()
            trained = [recipe.trained(steps) for recipe in best]
            self._stage(self._bids(trained, self.samples, steps), len(TRAINING) - number)
            if number and self._best_rank() >= before:
                return

    def _best_rank(self) -> tuple[float, ...]:
        made = [self.goal.rank(trial) for trial in self.trials if not trial.problem]
        return min(made, default=(math.inf,))

    # --- time ------------------------------------------------------------------------------------------------

    def _stage(self, bids: Sequence[Bid], stages: int, *, reserve: float = 0.0, aside: bool = False) -> None:
        """Do as many of the bids, which are sorted, as fit into the stage's part of the time; at least the first.

        Args:
            bids: what is to be tried.
            stages: parts that the time is cut into, of which this stage gets one.
            reserve: seconds that are to be left for later.
            aside: other budgets are tried, which say nothing of what a recipe is asked for next.
        """
        end, waiting, least = self.time.left * (1 - 1 / max(1, stages)), [*bids], reserve
        while waiting and self.time.left:
            chosen = list[Bid]()
            while waiting and len(chosen) < self.width:
                bid = waiting.pop(0)
                if self.time.left - self.predicted(bid) >= least:
                    chosen.append(bid)
                    least = max(reserve, end)  # the first that can be done is done
            self._do(chosen, aside=aside)

    def _do(self, bids: Sequence[Bid], *, aside: bool) -> None:
        assert self._perform is not None
        for index, trial in self._perform(bids):
            recipe = bids[index].recipe
            self.trials.append(trial)
            if trial.problem != STOPPED and not aside:
                self._done.setdefault(recipe.name, []).append(trial)
                self._known[recipe.name] = recipe

    def predicted(self, bid: Bid) -> float:
        """Seconds that a bid takes: by the last trial of its recipe, samples and gradient steps; 0 if nothing tells."""
        made = self._done.get(bid.recipe.name)
        if not made and bid.recipe.name in self._parts:
            return sum(self.predicted(replace(bid, recipe=part)) for part in self._parts[bid.recipe.name])
        if not made:
            known = [trial for trial in self.trials if not trial.problem]
            return sum(trial.seconds for trial in known) / max(1, len(known))
        last = made[-1]
        factor = max(1.0, bid.samples / max(1, last.samples)) ** SCALING
        if bid.training:
            factor *= bid.training / last.training if last.training else FIRST_TRAINING
        return last.seconds * factor * CAUTION
