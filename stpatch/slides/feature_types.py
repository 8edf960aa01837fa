"""What a feature's type says: a gene, a control, something else than RNA; the vocabularies that files use.

Only types that are known to mean something else drop a feature. A type that is in no vocabulary here is a gene, and the
record lists it, so that nothing goes or stays in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

Kind = Literal["gene", "control", "other", "unknown"]

GENES = frozenset(
    {"gene_expression", "gene", "genes", "gex", "rna", "mrna", "transcript", "transcripts", "custom_gene"}
)
"""Of 10x and of those who write in its manner."""
CONTROLS = frozenset(
    {
        "control",
        "negative_control",
        "negative_control_codeword",
        "negative_control_probe",
        "unassigned_codeword",
        "deprecated_codeword",
        "genomic_control",
        "blank_codeword",
        "blank",
        "spike_in",
        "ercc",
        "negative_probe",
        "system_control",
        "false_code",
        "positive_control",
        "intergenic_region",
    }
)
OTHERS = frozenset(
    {
        "antibody_capture",
        "antigen_capture",
        "crispr_guide_capture",
        "multiplexing_capture",
        "custom",
        "protein_expression",
        "protein",
        "proteins",
        "antibody",
        "antibodies",
        "adt",
        "hto",
        "peaks",
        "atac",
        "chromatin_accessibility",
        "vdj",
        "vdj_t",
        "vdj_b",
        "hashtag",
        "crispr",
        "metabolite",
        "lipid",
        "isotype_control",
    }
)
"""Modalities beside RNA."""
CONTROL_NAMES = (
    r"blank([-_ .]?\d.*|[-_ ].*)?",
    "NegPrb.*",
    r"NegControl.*",
    r"Negative[-_ ]?(\d.*|control.*|probe.*)",
    "SystemControl.*",
    "FalseCode.*",
    "DeprecatedCodeword.*",
    "UnassignedCodeword.*",
    "Intergenic_.*",
    r"antisense_.*",
    r"ERCC-\d+",
)
"""Names (full match, any case) of the imaging platforms' controls and of spike-ins, for files of unknown platform."""
_BIOTYPES = frozenset(
    {
        "protein_coding",
        "lncrna",
        "lincrna",
        "mirna",
        "misc_rna",
        "snrna",
        "snorna",
        "scarna",
        "scrna",
        "rrna",
        "trna",
        "mt_rrna",
        "mt_trna",
        "ribozyme",
        "srna",
        "vault_rna",
        "vaultrna",
        "tec",
        "processed_transcript",
        "antisense",
        "antisense_rna",
        "sense_intronic",
        "sense_overlapping",
        "macro_lncrna",
        "non_coding",
        "ncrna",
        "guide_rna",
        "telomerase_rna",
        "y_rna",
        "artifact",
        "retained_intron",
        "nonsense_mediated_decay",
        "non_stop_decay",
        "protein_coding_cds_not_defined",
        "protein_coding_lof",
        "bidirectional_promoter_lncrna",
        "pseudo",
        "biological_region",
        "3prime_overlapping_ncrna",
        "disrupted_domain",
        "nontranslating_cds",
        "transposable_element",
        "pre_mirna",
        "rnase_p_rna",
        "rnase_mrp_rna",
        "srp_rna",
    }
)
"""Gene types of GENCODE, Ensembl and NCBI, beside those that end as below."""
_BIOTYPE_ENDS = re.compile(r".*pseudogene|(ig|tr)_[a-z]{1,2}_gene")


def kind_of(text: str) -> Kind:
    """Return what one feature type means, in any case, with blanks, hyphens or underscores; "" is unknown."""
    word = re.sub(r"[\s-]+", "_", text.strip().lower())
    if word in GENES or word in _BIOTYPES or _BIOTYPE_ENDS.fullmatch(word):
        return "gene"
    return "control" if word in CONTROLS else "other" if word in OTHERS else "unknown"


def kinds_of(types: Sequence[str]) -> list[Kind]:
    """Return the kind of each type; every different text is looked at once."""
    known = {text: kind_of(text) for text in set(types)}
    return [known[text] for text in types]


def is_trusted(text: str) -> bool:
    """Whether a type says by itself that the feature is no control: 10x's words do, a gene type of GENCODE does not."""
    return re.sub(r"[\s-]+", "_", text.strip().lower()) in GENES


def notes_of(types: Sequence[str]) -> list[str]:
    """Return a note that lists the types that no vocabulary has; such features are taken for genes."""
    unknown = Counter(text for text in types if text and kind_of(text) == "unknown")
    if not unknown:
        return []
    listed = ", ".join(f"{text} ({count})" for text, count in sorted(unknown.items())[:20])
    more = f", ... ({len(unknown)} types in all)" if len(unknown) > 20 else ""
    return [f"feature types that are not known are taken for genes: {listed}{more}"]
