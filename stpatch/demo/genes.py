"""Gene symbols of the simulated slides: markers of each domain, and genes that every tissue expresses.

The symbols are real, so that pictures and tables read as usual; their Ensembl ids are made up (see `ensembl_ids`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MARKERS: dict[str, dict[str, str]] = {
    "cortex": {
        "layer 1": "RELN CXCL14 NDNF AQP4 GFAP FABP7 AGT",
        "layer 2-3": "CUX2 HPCAL1 CALB1 LAMP5 RASGRF2 CARTPT",
        "layer 4": "RORB NEFM VAMP1 NEFH SCN1B",
        "layer 5": "PCP4 TRABD2A BCL11B FEZF2 ETV1 SULF2",
        "layer 6": "NTNG2 TLE4 FOXP2 NR4A2 SEMA3E",
        "white matter": "MBP MOBP PLP1 MOG CNP MAG CLDN11 TF",
    },
    "breast": {
        "carcinoma": "ERBB2 GRB7 KRT8 KRT18 KRT19 EPCAM MUC1 FASN",
        "in situ": "KRT5 KRT14 KRT17 MYLK CDH3 SFN",
        "stroma": "COL1A1 COL1A2 COL3A1 FN1 SPARC LUM DCN POSTN",
        "immune": "PTPRC CD3D CD3E CD8A CD4 GZMK CCL5 IL7R",
        "adipose": "ADIPOQ PLIN1 FABP4 LPL CIDEC PLIN4",
    },
    "lymph node": {
        "germinal centre": "BCL6 AICDA MKI67 TOP2A RGS13 CD38 STMN1",
        "mantle": "MS4A1 CD19 CD79A FCER2 IGHD BANK1",
        "T zone": "CCR7 CCL19 CCL21 TRAC LEF1 SELL",
        "medulla": "IGHG1 IGKC JCHAIN MZB1 XBP1 CD68 C1QA",
        "capsule": "ACTA2 TAGLN DES MYH11 VIM",
    },
}
"""Markers by anatomy and domain."""

_EVERYWHERE = """
ACTB ACTG1 ALDOA ATP5F1B B2M CALM1 CALM2 CFL1 CLU COX4I1 COX6C EEF1A1 EEF2 ENO1 FAU FTH1 FTL GAPDH GNAS H3-3B HNRNPA1
HSP90AA1 HSP90AB1 HSPA8 LDHA LDHB MALAT1 MIF MYL6 NACA NEAT1 NPM1 PABPC1 PFN1 PGK1 PKM PPIA PSAP PTMA RACK1 SERF2
SOD1 TMSB4X TMSB10 TPI1 TPT1 TUBA1B TUBB UBA52 UBB UBC VDAC1 YWHAZ
MT-ATP6 MT-CO1 MT-CO2 MT-CO3 MT-CYB MT-ND1 MT-ND2 MT-ND3 MT-ND4 MT-ND5
RPL3 RPL4 RPL5 RPL6 RPL7 RPL8 RPL10 RPL11 RPL13 RPL15 RPL18 RPL19 RPL23 RPL27 RPL30 RPL32 RPL35 RPL37 RPLP0 RPLP1
RPS2 RPS3 RPS4X RPS6 RPS8 RPS11 RPS14 RPS15 RPS18 RPS19 RPS23 RPS24 RPS27 RPS29 RPSA
"""

_ELSEWHERE = """
ABCA1 ACADM ADAM10 AKT1 ANXA1 ANXA2 APOE APP AQP1 ARF1 ATF4 ATM AXL BAX BCL2 BRAF BRCA1 BSG CANX CASP3 CAV1 CCND1
CD14 CD34 CD44 CD63 CD74 CD81 CD9 CDH1 CDK4 CDK6 CDKN1A CDKN2A CEBPB CHEK1 COL4A1 COL6A1 CREB1 CSF1R CST3 CTNNB1
CTSB CTSD CXCL12 CXCR4 DDX5 DNMT1 DUSP1 EGFR EGR1 EIF4E ENG EP300 ESR1 EZH2 FOS FOXO3 GATA3 GLUL GNB1 GSN GSTP1
HIF1A HLA-A HLA-B HLA-C HLA-DRA HLA-DRB1 HMGB1 HSPB1 ICAM1 IFITM3 IGF1R IL6ST IRF1 ISG15 ITGB1 JAK1 JUN JUNB KDR
KLF2 KLF6 LAMP1 LGALS1 LGALS3 LMNA LYZ MAPK1 MCL1 MDM2 MET MMP2 MTOR MYC NFKB1 NFKBIA NOTCH1 NRAS NRP1 PDGFRB PECAM1
PGR PIK3CA PLAU PTEN RB1 RHOA S100A4 S100A6 SMAD3 SOX4 SPP1 STAT1 STAT3 TCF4 TGFB1 THY1 TIMP1 TIMP3 TP53 TXNIP VCAM1
VEGFA VWF WNT5A XIST YAP1 ZEB1 ZFP36
"""


def symbols() -> list[str]:
    """Return all symbols, sorted, each once (about 330)."""
    markers = [gene for domains in MARKERS.values() for genes in domains.values() for gene in genes.split()]
    return sorted({*markers, *_EVERYWHERE.split(), *_ELSEWHERE.split()})


def abundance(names: list[str], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each gene's expected share before any domain raises it.

    Parameters
    ----------
    names
        (genes,) symbols.
    noise
        (genes,) standard normal numbers: how far a gene is from what is usual for its kind.
    """
    everywhere, scarce = set(_EVERYWHERE.split()), set(_ELSEWHERE.split())
    level = np.array([12.0 if name in everywhere else 1.0 if name in scarce else 0.6 for name in names])
    return level * np.exp(0.7 * noise)


def ensembl_ids(names: list[str]) -> list[str]:
    """Return made-up Ensembl ids: a number above all that Ensembl gave out, so that no one takes them for real."""
    return [f"ENSG999{i:08d}" for i in range(len(names))]
