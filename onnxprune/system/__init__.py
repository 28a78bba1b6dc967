"""Deal with the machine: files that may be anything or appear whole, free memory, cores, the end of the process."""

from onnxprune.system.atomic import replacing, same_file, write_failure
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
    "read_file",
    "read_stream",
    "replacing",
    "same_file",
    "shortage",
    "terminate",
    "write_failure",
]
