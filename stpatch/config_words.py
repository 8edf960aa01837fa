"""What every key of the config is for, in one sentence: the descriptions of its JSON Schema, which editors show."""

from __future__ import annotations

from typing import Any

WORDS: dict[str, dict[str, str]] = {
    "DatasetSection": {
        "name": "Name of the dataset: letters, digits, dots, dashes and underscores.",
        "version": "Version of the dataset, as its card and manifest give it.",
        "license": "Licence of the dataset, such as CC-BY-4.0; printed on its card.",
        "description": "A sentence or two about the dataset, for its card and report.",
        "output": "Folder of the dataset; a relative path is taken from the config's folder.",
        "work_dir": "Folder of intermediate files; null: beside the output, with .work at its end.",
        "seed": "Seed of every draw: crops, channels, splits, order.",
        "extends": "An earlier dataset that this one continues: its gene ids, splits, draws and shards stay.",
        "allow_duplicates": "Slides that may hold the same section as another one; by default that is an error.",
    },
    "SlideEntry": {
        "slide_id": "Id of the slide, unique; null: from the path.",
        "path": "File or folder of the slide, as the platform's reader takes it.",
    },
    "SlidesSection": {
        "sheet": "Samplesheet: a CSV with the columns slide_id and path, and any further metadata.",
        "glob": "One or several patterns of paths, such as runs/*/outs.",
        "entries": "The slides themselves, as a list of mappings with slide_id and path.",
        "withdraw": "Slides of the extended dataset that this version leaves out.",
    },
    "GenesSection": {
        "identity": "What makes rows of several slides one gene: the symbol or the Ensembl id.",
        "map": "Table of names to replace: the columns from and to.",
        "vocabulary": "File of the genes with their ids; null: all genes that the slides measured.",
        "duplicates": "One name on several rows of a slide: sum their counts, take the first, or refuse.",
        "exclude": "Patterns of gene names to leave out (regular expressions, full match).",
        "keep_controls": "Whether the platform's control probes stay.",
        "absent": "What a gene means that a file does not list: unmeasured, zero, or what its format says (auto).",
        "reference": "Table that translates symbols and Ensembl ids, or a package that has one.",
    },
    "QcSection": {
        "in_tissue": "Leave out spots that the platform calls out of tissue.",
        "min_counts": "Leave out spots with fewer counts.",
        "max_counts": "Leave out spots with more counts; null: no limit.",
        "min_genes": "Leave out spots with fewer genes.",
        "max_mito": "Largest share of mitochondrial counts of a spot; null: no limit.",
        "min_spots_per_gene": "Leave genes out of the vocabulary that fewer spots of the corpus have.",
        "min_area": "Least area of a cell, in the platform's unit; null: no limit.",
        "max_area": "Largest area of a cell, in the platform's unit; null: no limit.",
    },
    "TableSection": {
        "genes_in": "Whether genes are the table's rows or its columns.",
        "delimiter": "What separates the cells; null: found out.",
        "id_column": "Column with the names of spots or genes; null: the first.",
        "x_column": "Column with x; null: found by its name.",
        "y_column": "Column with y; null: found by its name.",
        "slide_column": "Column that says which slide a row belongs to; null: all rows are one slide.",
        "slide_value": "The value of slide_column that picks this slide's rows.",
    },
    "IngestSection": {
        "platform": "Platform of the slides; auto: recognized by their content.",
        "values": "Whether the files hold raw counts or values that are normalized already.",
        "layer": "Layer of an AnnData file that holds the counts; null: found by its name.",
        "genes": "How genes are named, matched and left out.",
        "qc": "Which spots and genes stay.",
        "bin_um": "Side of the squares that molecules or bins are summed in, in micrometres; null: as they are.",
        "min_qv": "Least quality of a Xenium transcript.",
        "um_per_unit": "Micrometres per coordinate unit, where the files do not tell.",
        "pitch_um": "Distance of neighbouring spots in micrometres, where the files do not tell.",
        "hd_bin_um": "Which bins of a Visium HD run to read, by their side in micrometres.",
        "select": "Column and value that pick this slide's rows in a file of several sections.",
        "places": "Which to believe where array indices and coordinates disagree; auto refuses.",
        "table": "Facts that a generic table cannot tell by itself.",
        "labels": "Columns of the spots that become label maps.",
    },
    "NormalizeSection": {
        "method": "The normalization that rules see and that the reader applies.",
        "target_sum": "Counts that every spot is scaled to: a number, slide_median or corpus_median.",
        "theta": "Overdispersion of Pearson residuals.",
    },
    "CandidatesSection": {
        "method": "The panel rule that chooses the candidates.",
        "n": "How many candidates a patch may draw from.",
        "genes": "Genes of method list: names, or a text file of one per line.",
    },
    "ChannelsSection": {
        "scope": "Where the channel list is fixed: for all (panel), per slide, or per patch.",
        "method": "The rule that chooses the genes; it must be one of the scope.",
        "n": "Channels of a sample.",
        "genes": "Genes of method list: names, or a text file of one per line.",
        "across_slides": "How slides are joined for a panel: pooled statistics, or ranks of each slide.",
        "candidates": "A panel rule that limits what a patch rule may draw from; null: all genes.",
        "draws": "Samples per patch, each with channels of its own.",
        "fit_on": "The splits that choose the genes; auto: train.",
        "min_detected": "Least share of spots that a panel's genes must have.",
    },
    "GridSection": {
        "method": "What a pixel is: a place of the lattice, a square of pitch_um, or the slide scaled to size.",
        "pitch_um": "Side of a pixel in micrometres, for method um.",
        "size": "Side of the square grid in pixels, for method fit.",
        "collisions": "Several spots in one pixel: sum their counts, take the mean, or keep the first.",
    },
    "CropSection": {
        "unit": "What a sample is: a patch, a single spot, or the whole slide.",
        "size": "Height and width of a patch in pixels.",
        "method": "Which windows: tiles, random ones, or one around every spot.",
        "stride": "Step between tiles in pixels, one number or (row, column); null: the size, without overlap.",
        "density": "Random windows per area of one window.",
        "min_coverage": "Least share of a window's pixels that hold a spot.",
        "min_spots": "Least number of spots in a window; null: no limit.",
        "edge": "Windows over the grid's edge: pad, shift back inside, or drop.",
        "exclude": "Text file of patch keys to leave out, one per line; null: none.",
    },
    "BlocksSection": {"size": "Side of the blocks in pixels."},
    "SplitSection": {
        "by": "Column whose values stay together; auto: a donor-like column, else the slide.",
        "allow_leak": "Donor-like columns whose values may span splits.",
        "method": "How groups are dealt: balanced to the fractions, or by a hash of each group alone.",
        "fractions": "Share of the patches of every split; they add up to 1.",
        "stratify": "Column whose values every split shall have alike.",
        "folds": "Number of folds in place of fractions.",
        "column": "Column that says each slide's split.",
        "blocks": "Deal square blocks of each slide instead of slides.",
    },
    "ShardsSection": {
        "format": "Format of the shards: tar (webdataset) or zarr.",
        "values": "Store raw counts, which the reader normalizes, or normalized values.",
        "dtype": "Type of normalized values.",
        "encoding": "How a sample's values are compressed.",
        "patches": "Samples per shard.",
        "mix": "Slides whose patches are shuffled together over shards.",
    },
    "RunSection": {
        "workers": "Local worker processes; auto: as many as there are cores.",
        "on_error": "A slide that fails stops the build, or is skipped and listed.",
        "max_memory": "Memory that all workers together may use, such as 16GB.",
        "executor": "What runs the units: local processes, or a Dask cluster.",
        "scheduler": "Address of the Dask scheduler; null: a cluster of this machine.",
        "setup": "Shell lines before each task of a submitted job.",
    },
    "Config": {
        "dataset": "What the dataset is called and where it goes.",
        "slides": "Where the slides are.",
        "ingest": "How vendor files become canonical slides.",
        "normalize": "The normalization that the rules see and that the reader applies.",
        "channels": "Which genes become channels.",
        "grid": "How spots become pixels.",
        "crop": "How patches are cut from the grid.",
        "split": "How slides are dealt to splits.",
        "shards": "How samples are stored.",
        "run": "How the work is run; nothing here changes a byte of the dataset.",
    },
}
"""By section and key."""


def describe(schema: dict[str, Any], section: type) -> None:
    """Add the keys' descriptions to a section's JSON Schema; pydantic calls this for every section."""
    words = WORDS.get(section.__name__, {})
    for name, value in schema.get("properties", {}).items():
        if name in words:
            value.setdefault("description", words[name])
