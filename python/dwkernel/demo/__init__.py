"""`dwkernel demo`: real files, lost drives, nothing lost.

Stores a real tree on six drives at 4+2, deletes one drive, damages another, proves every file by its
digest, rebuilds, proves full redundancy, kills a writer in the middle and proves what was acknowledged.
Writes a page with what each step took and where the stripes lie.
"""

from dwkernel.demo.story import Proof, Step, Story, run

__all__ = ["Proof", "Step", "Story", "run"]
