"""A model as a folder of files: graphs that share weights and states, their configuration and their tokenizer."""

from onnxprune.folder.configuration import Configuration
from onnxprune.folder.contents import Folder, read_folder
from onnxprune.folder.layers import DECODER, ENCODER, Stack, check_counted
from onnxprune.folder.write import Smaller, check_folder_target, write_folder

__all__ = [
    "DECODER",
    "ENCODER",
    "Configuration",
    "Folder",
    "Smaller",
    "Stack",
    "check_counted",
    "check_folder_target",
    "read_folder",
    "write_folder",
]
