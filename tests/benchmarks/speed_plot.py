"""Draw a table of tests.benchmarks.speed: python -m tests.benchmarks.speed_plot FILE.csv FIGURE.png.

Latency ratio to the plain network over batch size, inference: ours and the published formulation, a panel
for each backbone and lambda.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.benchmarks.speed_table import read

_LOOKS = {"auto": ("#0060A8", "o", "wnexplore"), "published": ("#E8862E", "s", "published formulation")}

_LEVELS = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12)


def main() -> None:
    """Read the CSV, write the figure."""
    table = read(Path(sys.argv[1]))
    table = table[(table["mode"] == "inference") & table["M"].notna()]
    backbones = list(dict.fromkeys(table["backbone"]))
    batches = sorted(table["batch_size"].unique())
    least, largest = table["latency_ratio_low"].min(), table["latency_ratio_high"].max()
    levels = [level for level in _LEVELS if least < level < largest]
    figure = Figure(figsize=(2.6 * len(backbones), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(backbones), sharex=True, sharey="row", squeeze=False)
    for row, terms in enumerate((1, 4)):
        for column, backbone in enumerate(backbones):
            ax = panels[row][column]
            selected = table[(table["terms"] == terms) & (table["backbone"] == backbone)]
            for name, (colour, marker, label) in _LOOKS.items():
                for pair, line in selected[selected["formulation"] == name].groupby(["M", "G"]):
                    line = line.sort_values("batch_size")
                    spread = [
                        line["latency_ratio"] - line["latency_ratio_low"],
                        line["latency_ratio_high"] - line["latency_ratio"],
                    ]
                    ax.errorbar(
                        *(line["batch_size"], line["latency_ratio"], spread),
                        color=colour,
                        marker=marker,
                        markersize=4,
                        linewidth=1,
                        linestyle="-" if pair[1] == 1 else "--",
                        label=f"{label}, G = {int(pair[1])}",
                    )
            ax.axhline(1, color="#595959", linewidth=0.8)
            ax.set(xscale="log", yscale="log", title=f"{backbone}, λ = {terms}")
            ax.set_xticks(batches, labels=batches)
            ax.set_yticks(levels, labels=[f"{level:g}" for level in levels])
            ax.minorticks_off()
            ax.title.set_fontsize(8)
            ax.spines[["top", "right"]].set_visible(False)
    for ax in panels[-1]:
        ax.set_xlabel("batch size")
    for row in panels:
        row[0].set_ylabel("latency / plain")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(Path(sys.argv[2]), dpi=160)


if __name__ == "__main__":
    main()
