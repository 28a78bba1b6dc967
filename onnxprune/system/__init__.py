"""Deal with the machine: files that may be anything or appear whole, free memory, cores, the end of the process."""

from typing import TYPE_CHECKING

from onnxprune.lazy import homes_in, on_first_use

if TYPE_CHECKING:
    from onnxprune.system.atomic import replacing, same_file, write_failure
    from onnxprune.system.garbage import rare_collections
    from onnxprune.system.memory import check_fits, free_memory, limit_to, shortage
    from onnxprune.system.processors import cores, quota
    from onnxprune.system.reading import check_regular, read_file, read_stream
    from onnxprune.system.termination import killable, terminate

__all__ = [
    "check_fits",
    "check_regular",
    "cores",
    "free_memory",
    "killable",
    "limit_to",
    "quota",
    "rare_collections",
    "read_file",
    "read_stream",
    "replacing",
    "same_file",
    "shortage",
    "terminate",
    "write_failure",
]

# `onnxprune --help` needs the end of the process alone.
__getattr__ = on_first_use(
    __name__,
    homes_in(
        __name__,
        {
            "atomic": ("replacing", "same_file", "write_failure"),
            "garbage": ("rare_collections",),
            "memory": ("check_fits", "free_memory", "limit_to", "shortage"),
            "processors": ("cores", "quota"),
            "reading": ("check_regular", "read_file", "read_stream"),
            "termination": ("killable", "terminate"),
        },
    ),
)
