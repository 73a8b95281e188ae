"""A card as HTML: one light page, which prints on one side of A4 and needs no other file."""

from __future__ import annotations

import base64
import html
import io
import math
from datetime import date
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor

from nic_helpers import __version__, stats
from nic_helpers.card.measure import Card
from nic_helpers.card.subject import origin
from nic_helpers.images import pixels_sha256, png_bytes
from nic_helpers.metrics import BLOW_UP

FEW = 4  # images, up to which an interval is the range
CROP = 96  # pixels a side of the pictures shown
STYLE = """
.nic-card{font:11px/1.35 system-ui,"Segoe UI",Roboto,"Liberation Sans",sans-serif;color:#1d1d1f;background:#fff;
max-width:190mm;margin:0 auto;padding:2mm}
.nic-card h1{font-size:19px;margin:0;font-weight:650}.nic-card h2{font-size:12px;margin:9px 0 3px;color:#0b4f71}
.nic-card p{margin:2px 0}.nic-card .dim{color:#5a5a5a}.nic-card .row{display:flex;gap:14px;align-items:flex-start;flex-wrap:wrap}
.nic-card .half{flex:1 1 300px;min-width:0}.nic-card .big{display:flex;gap:8px;margin:7px 0 2px;flex-wrap:wrap}
.nic-card .big div{flex:1 1 130px;background:#f1f5f8;border-radius:5px;padding:5px 8px}
.nic-card .big b{display:block;font-size:18px;font-weight:650}
.nic-card table{border-collapse:collapse;width:100%;font-size:10.5px;margin:2px 0;background:none}
.nic-card th,.nic-card td{text-align:left;padding:2px 6px 2px 0;border-bottom:1px solid #dfe5ea;vertical-align:top;white-space:normal}
.nic-card th{font-weight:600;color:#444}.nic-card .n{white-space:nowrap}
.nic-card .pictures{display:flex;gap:6px;flex-wrap:wrap}.nic-card figure{margin:0;width:82px;font-size:9px;line-height:1.2}
.nic-card figure img{width:82px;height:82px;display:block}
.nic-card .not{border:1px solid #b4690e;border-radius:5px;padding:3px 9px 5px;background:#fffaf2;margin-top:7px}
.nic-card .not h2{color:#8a4b00;margin-top:2px}.nic-card ul{margin:0;padding-left:15px}
.nic-card .ok{color:#1a6b3c;font-weight:600}.nic-card .bad{color:#a3260b;font-weight:600}
.nic-card img.plot{max-width:100%;display:block}
@media print{@page{size:A4;margin:7mm 9mm}.nic-card{font-size:9px;line-height:1.25;max-width:none;padding:0;
-webkit-print-color-adjust:exact}
.nic-card table{font-size:8.5px}.nic-card h2{margin-top:6px}}
"""


def page(card: Card) -> str:
    """The card as a whole HTML file."""
    title = f"Robustness card: {html.escape(_name(card))}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>{title}</title>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body style="margin:0;background:#fff">{body(card)}</body></html>\n'
    )


def body(card: Card) -> str:
    """The card as a piece of HTML, to be shown in another page."""
    parts = (_head(card), _numbers(card), _clean(card), _attacks(card), _pictures(card), _checks(card), _limits(card), _made(card))
    return f'<div class="nic-card"><style>{STYLE}</style>{"".join(parts)}</div>'


def write(card: Card, path: str | Path) -> Path:
    """Write the card as one HTML file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(card), encoding="utf-8")
    return path


def _name(card: Card) -> str:
    return card.codec.label


def spread(values: pd.Series, unit: str, digits: int = 1) -> str:
    """The mean with the range over few images, or with its 95 % interval over more."""
    if values.isna().any():
        return "–"
    mean = f"{values.mean():.{digits}f}"
    if len(values) == 1:
        return f"{mean} {unit}".strip()
    i = stats.bootstrap(values) if len(values) > FEW else None
    low, high = (i.low, i.high) if i else (values.min(), values.max())
    return f"{mean} [{low:.{digits}f}, {high:.{digits}f}] {unit}".strip()


def _kind(card: Card) -> str:
    n = len(card.images)
    return "One image" if n == 1 else f"Mean [range] of {n} images" if n <= FEW else f"Mean [95 % interval] of {n} images"


def _times(factor: float) -> str:
    return f"×{factor:.2f}" if factor < 10 else f"×{factor:.0f}"


def _sizes(card: Card) -> str:
    sides = {f"{im.shape[2]}×{im.shape[1]}" for im in card.images.values()}
    return f"{sides.pop()} pixels" if len(sides) == 1 else "various sizes"


def _head(card: Card) -> str:
    s = card.settings
    what = (
        "thorough: long attacks from several starts, and still a lower bound"
        if s.thorough
        else "quick: short attacks, so the damage is a lower bound"
    )
    return (
        f"<h1>Robustness card: {html.escape(_name(card))}</h1>"
        f'<p class="dim">{len(card.images)} image{"s" * (len(card.images) != 1)} ({html.escape(card.source)}), {_sizes(card)} · '
        f"budget ε = {255 * s.eps:g}/255 · {what} · {date.today().isoformat()}</p>"
    )


def _numbers(card: Card) -> str:
    boxes = []
    if worst := card.worst("psnr_recon", largest=False):
        name, row = worst
        text = f"PSNR between the outputs, worst picture: {row['image']}, attack “{name}”"
        boxes.append((f"{row['psnr_recon']:.1f} dB", text))
    if worst := card.worst("bpp_ratio", largest=True):
        name, row = worst
        boxes.append((_times(row["bpp_ratio"]), f"size of the file, worst file: {row['image']}, attack “{name}”"))
    pictures = {n: t for n, t in card.attacked.items() if n.startswith("picture")}
    if pictures:
        blown = sum(int(t["blow_up"].sum()) for t in pictures.values())
        tried = sum(map(len, pictures.values()))
        boxes.append((f"{blown} of {tried}", f"pictures fall apart: outputs less than {BLOW_UP:g} dB alike"))
    well = [ok for _, _, ok in card.checks if ok is not None]
    boxes.append((f"{sum(well)} of {len(well)}", "validity checks passed"))
    return '<div class="big">' + "".join(f"<div><b>{b}</b>{html.escape(t)}</div>" for b, t in boxes) + "</div>"


def _clean(card: Card) -> str:
    c, rows = card.clean, []
    rows.append(("Rate, real files" if card.real_files else "Rate", spread(c["bpp"], "bits per pixel", 2)))
    rows.append(("PSNR", spread(c["psnr"], "dB")))
    rows.append(("MS-SSIM", spread(c["ms_ssim"], "(1 is perfect)", 3)))
    if card.real_files:
        rows.append(("Bytes beside JPEG's", _against_jpeg(card)))
    table = "".join(f'<tr><th>{k}</th><td class="n">{html.escape(v)}</td></tr>' for k, v in rows)
    notes = "".join(f"<p>{html.escape(n)}</p>" for n in card.notes)
    plot = f'<img class="plot" alt="Rate and quality beside JPEG" src="{_plot(card)}">' if card.real_files else ""
    return (
        f'<h2>Without an attack</h2><div class="row"><div class="half"><p class="dim">{_kind(card)}</p><table>{table}</table>{notes}'
        f'</div><div class="half">{plot}</div></div>'
    )


def _against_jpeg(card: Card) -> str:
    curve = card.jpeg.groupby("quality")[["bpp", "psnr"]].mean()
    point = card.clean[["bpp", "psnr"]].mean()
    if card.codec.name == "jpeg":
        return "this is JPEG"
    percent = stats.rate_difference(curve, point)
    if math.isnan(percent):
        return "PSNR is outside JPEG's curve"
    return f"{abs(percent):.0f} % {'fewer' if percent < 0 else 'more'} at the same PSNR"


def _plot(card: Card) -> str:
    with plt.style.context("default"):
        figure, axes = plt.subplots(1, 2, figsize=(4.6, 1.75), layout="constrained")
        curve = card.jpeg.groupby("quality")[["bpp", "psnr", "ms_ssim"]].mean()
        for ax, q, label in zip(axes, ("psnr", "ms_ssim"), ("PSNR, dB", "MS-SSIM"), strict=True):
            ax.plot(curve["bpp"], curve[q], "--", color="#777777", marker=".", markersize=4, lw=1, label="JPEG")
            ax.plot(card.clean["bpp"].mean(), card.clean[q].mean(), "o", color="#0b72a6", markersize=6, label="this codec")
            ax.set_xlabel("bits per pixel", fontsize=7)
            ax.set_title(label, fontsize=7.5, loc="left")
            ax.tick_params(labelsize=6.5, length=2)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].legend(fontsize=6.5, frameon=False, loc="lower right")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=170)
        plt.close(figure)
    return _data(buffer.getvalue())


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _attacks(card: Card) -> str:
    header = "".join(
        f"<th>{t}</th>"
        for t in (
            "Attack on the …",
            "PSNR between the outputs",
            "noise, equal RMS",
            "Fall apart",
            "File's size",
            "noise, equal RMS",
        )
    )
    rows = ""
    for name, t in card.attacked.items():
        noise, file = card.noise[name], name.startswith("file")
        cells = [
            f"{spread(t['psnr_recon'], 'dB')}",
            f"{noise['psnr_recon'].mean():.1f} dB",
            f"{int(t['blow_up'].sum())} of {len(t)}",
            "×" + spread(t["bpp_ratio"], "", 2) if "bpp_ratio" in t else "–",
            _times(noise["bpp_ratio"].mean()) if "bpp_ratio" in noise else "–",
        ]
        aims = cells.copy()
        mark = 3 if file else 0
        aims[mark] = f"<b>{cells[mark]}</b>"
        seconds = f"{card.seconds.get(name, 0):.0f} s"
        what = f'<b>{html.escape(name)}</b> <span class="dim">{html.escape(card.says[name])}; {seconds}</span>'
        rows += f"<tr><td>{what}</td>" + "".join(f'<td class="n">{c}</td>' for c in aims) + "</tr>"
    return (
        f'<h2>Under attack</h2><p class="dim">{_kind(card)}. “Outputs”: the decoded clean and the decoded attacked picture; high is '
        f"good. Bold: what the attack aims at. RMS: root mean square of the change.</p>"
        f"<table><tr>{header}</tr>{rows}</table>"
    )


def _crops(card: Card, attack: str, image: str) -> list[tuple[str, Tensor]]:
    """The part of an image where the two outputs differ most: source, attacked, and both decoded."""
    k, x = list(card.images).index(image), card.images[image]
    found = card.found[attack][k]
    codec = card.codec.for_images([x])
    clean, attacked = codec.reconstruct([x])[0], codec.reconstruct([found])[0]
    error = (clean - attacked).abs().mean(0)[None, None]
    side = min(CROP, *error.shape[2:])
    means = torch.nn.functional.avg_pool2d(error, side, 8)[0, 0]
    at = int(means.argmax())
    top, left = 8 * (at // means.shape[1]), 8 * (at % means.shape[1])
    shown = (("source", x), ("attacked", found), ("source, decoded", clean), ("attacked, decoded", attacked))
    return [(n, im[:, top : top + side, left : left + side]) for n, im in shown]


def _strip(card: Card, title: str, attack: str, image: str) -> str:
    figures = "".join(
        f'<figure><img alt="{n}" src="{_data(png_bytes(im))}"><figcaption>{n}</figcaption></figure>'
        for n, im in _crops(card, attack, image)
    )
    return f'<div class="half"><p>{html.escape(title)}</p><div class="pictures">{figures}</div></div>'


def _pictures(card: Card) -> str:
    strips, worst = "", card.worst("psnr_recon", largest=False)
    if worst:
        name, row = worst
        title = f"Worst picture: {row['image']}, “{name}”, {row['psnr_recon']:.1f} dB between the outputs"
        strips += _strip(card, title, name, row["image"])
    if worst := card.worst("bpp_ratio", largest=True):
        name, row = worst
        x = card.images[row["image"]]
        before, after = (row[c] * x.shape[1] * x.shape[2] / 8 for c in ("bpp_clean", "bpp_attacked"))
        ratio = _times(row["bpp_ratio"])
        strips += _strip(
            card, f"Worst file: {row['image']}, “{name}”, {before:,.0f} → {after:,.0f} bytes, {ratio}", name, row["image"]
        )
    return f'<h2>What the worst looks like</h2><div class="row">{strips}</div>' if strips else ""


def _checks(card: Card) -> str:
    marks = {True: '<span class="ok">✓ well</span>', False: '<span class="bad">✗ look</span>', None: "– not done"}
    rows = "".join(
        f'<tr><td class="n">{marks[ok]}</td><th class="n">{html.escape(what)}</th><td>{html.escape(text)}</td></tr>'
        for what, text, ok in card.checks
    )
    return f"<h2>Can these numbers be trusted?</h2><table>{rows}</table>"


def _limits(card: Card) -> str:
    n, s = len(card.images), card.settings
    points = [
        "An attack shows what can go wrong, never what cannot: a stronger attack may do more. No robustness is proved here.",
        f"{n} image{'s' * (n != 1)} of {_sizes(card)} and one budget, {255 * s.eps:g}/255: other pictures, sizes and budgets differ.",
        "The attacker changes the samples that are coded, by little. Printing, screenshots, resizing and damaged files are not tried.",
        "An attack that is made on another codec is one try. Another codec may hand on more.",
    ]
    if not s.thorough:
        points.insert(1, "Attacks were short. With --thorough they are long, and may do more.")
    if not card.codec.differentiable:
        points.insert(1, "No attack followed a gradient. Do not compare these numbers with those of a codec that has one.")
    items = "".join(f"<li>{p}</li>" for p in points)
    return f'<div class="not"><h2>What this does not show</h2><ul>{items}</ul></div>'


def _made(card: Card) -> str:
    s = card.settings
    total = sum(card.seconds.values())
    took = f"{total:.0f} s" if total < 5400 else f"{total / 3600:.1f} hours"
    images = ", ".join(f"{html.escape(n)} {pixels_sha256(im)[:8]}" for n, im in list(card.images.items())[:8])
    more = f" and {len(card.images) - 8} more" if len(card.images) > 8 else ""
    settings = (
        f"picture attacks {s.steps} gradients × {s.restarts}, file attack {s.rate_steps} a surrogate, "
        f"{s.check_queries} queries to check the gradient, seed {s.seed}"
    )
    return (
        f'<h2>How it was made</h2><p class="dim">nic_helpers {__version__}, torch {torch.__version__}, {card.codec.device}, '
        f"{torch.get_num_threads()} threads; {took} in all. Codec: {html.escape(repr(card.codec))}, {html.escape(origin(card.codec))}. "
        f"Settings: {settings}. Images (first 8 digits of their pixels' SHA-256): {images}{more}.</p>"
    )
