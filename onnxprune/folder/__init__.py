"""A model as a folder of files: graphs that share weights and states, their configuration and their tokenizer."""

from onnxprune.folder.configuration import Configuration
from onnxprune.folder.contents import Folder, read_folder
from onnxprune.folder.write import Smaller, check_folder_target, write_folder

__all__ = ["Configuration", "Folder", "Smaller", "check_folder_target", "read_folder", "write_folder"]
