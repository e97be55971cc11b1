"""Lists of an existing checkout of a published project, with labels of our class files.

`import_lists` knows the layouts of STDD, FROSTER, Open-VCLIP, ViFi-CLIP, TC-CLIP, OST and CLIP-FSAR by the files that
they have, see `layouts.py`. It returns `ImportedLists`: the lists, and the class files that have to be written beside
them because `label_db` does not have them (half-class draws, validation classes of episodic learning).
"""

from slowfast.datasets.repo_lists.importer import ImportedLists, import_lists

__all__ = ["ImportedLists", "import_lists"]
