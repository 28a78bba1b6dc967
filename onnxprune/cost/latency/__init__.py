"""The time that a model takes, as a function of how many units its groups lose."""
