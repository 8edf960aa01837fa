"""File formats that several platforms share; the readers stand on them, and none of them knows a reader.

Text: `text` (bytes and lines), `digits` and `delimited` (count tables and columns), `coordinates`, `cell_table`.
HDF5 and zarr: `hdf5`, `anndata_group`, `loom`. 10x: `tenx` (matrices), `positions`. Molecules: `molecule_table`,
`molecules` (their sum in bins), `molecule_slide`, `gem`, `gef`, `cosmx_fov`. What is read: `counts` (whole numbers),
`names` (of spots and genes), `places` and `lattice` (where spots lie).
"""
