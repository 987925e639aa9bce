"""Erasure codes and geometries, usable without a store.

>>> from dwkernel import erasure
>>> code = erasure.Code("4+2")
>>> data = [bytes([shard]) * 1000 for shard in range(4)]
>>> shards = [bytearray(shard) for shard in data + code.encode(data)]
>>> shards[0][:] = shards[3][:] = bytes(1000)  # two lost
>>> code.reconstruct(shards, lost=[0, 3])
>>> shards[:4] == data, code.verify(shards)
(True, True)
>>> geometry = erasure.Geometry("raid50:2x(4+1)")
>>> geometry.drives, geometry.data_fraction, geometry.tolerates({0, 5}), geometry.tolerates({0, 1})
(10, 0.8, True, False)
"""

from dwkernel._native import Code, Geometry, levels

__all__ = ["Code", "Geometry", "levels"]
