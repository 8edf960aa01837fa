"""HDF5 layouts: AnnData's elements, loom, GEF."""
