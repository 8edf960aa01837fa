"""File formats that several platforms share; the readers stand on them, and none of them knows a reader.

Text: `text` (bytes, lines), `dense` with `digits` (count tables), `delimited` (columns), `coordinates`, `cell_table`.
HDF5 and zarr: `hdf5`, `anndata_group`, `loom`. 10x: `tenx` with `tenx_matrix` and `mex`, `positions`, `hd_bins`.
Molecules: `molecule_table`, `molecules` (their sum in bins), `molecule_slide`, `gem`, `gef`, `cosmx_fov`. Parts of all:
`counts` (whole numbers), `names` (of spots and genes), `places` and `lattice` (where spots lie).
"""
