"""The command that shows a whole dataset: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpatch.cli.options import DatasetPath, Overrides, job_of


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(report)


def report(
    dataset: DatasetPath,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to; <dataset>.report.html if left out.")
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option("--work-dir", metavar="DIR", help="The build's work dir; beside it if left out.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The config, to be shown; its work dir is used.")
    ] = None,
    overrides: Overrides = None,
    slides: Annotated[int, typer.Option("--slides", min=0, help="Slides shown in detail.")] = 24,
    patches: Annotated[int, typer.Option("--patches", min=0, help="Patches to step through.")] = 18,
    gene: Annotated[str, typer.Option("--gene", help="Gene on the maps.")] = "",
    label: Annotated[str, typer.Option("--label", help="Label on the maps.")] = "",
) -> None:
    """Write one HTML file that shows the dataset.

    Slides with their counts, windows and QC, distributions, splits and leaks, patches, provenance. It loads nothing
    from the network. The dataset alone is enough; a work dir adds spots outside of patches, genes and reasons.
    """
    from stpatch.engine.estimate import human_size
    from stpatch.engine.work_maps import work_dir_of, work_maps
    from stpatch.storage import write_bytes
    from stpatch.views.report.page import Options
    from stpatch.views.report.page import report as page
    from stpatch.views.report.rebuild import rebuild_commands, settings_text

    job = None if config is None else job_of(config, overrides)
    work = work_dir_of(dataset, work_dir if work_dir is not None or job is None else job.work)
    text = page(
        dataset,
        options=Options(slides=slides, patches=patches, gene=gene, label=label),
        maps_of=None if work is None else work_maps(dataset, work),
        rebuild=rebuild_commands(dataset, config=config, overrides=overrides or []),
        settings="" if job is None else settings_text(job.config),
    )
    path = out or dataset.absolute().with_name(f"{dataset.absolute().name}.report.html")
    data = text.encode()
    write_bytes(path, data)
    typer.echo(f"report: {path} ({human_size(len(data))}; pictures from {'the work dir' if work else 'the patches'})")
