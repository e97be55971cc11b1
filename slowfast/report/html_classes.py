"""Sections of a page on the classes of a split: best and worst, confusion matrix, most confused pairs with frames."""

from __future__ import annotations

from collections.abc import Sequence

from slowfast.report.html_element import Markup, element, heading, name_of, number_cell, table
from slowfast.report.html_frames import FrameAlbum
from slowfast.report.html_results import Named, members, place
from slowfast.report.run_folder import Split
from slowfast.report.run_tables import ANY, ClassScore, Confusion, find_videos
from slowfast.report.svg import bar, bar_axis
from slowfast.report.svg_confusion import FEW_CLASSES, MOST_ENLARGED, NAMED_CLASSES, confusion_matrix, scale_legend

MOST_BARS = 10
_TRIED = 3


def classes_section(runs: Sequence[Named], album: FrameAlbum, *, max_pairs: int) -> Markup | None:
    """What was recognised and what was confused, per split; None if no split has class files.

    Args:
        runs: the runs of the page.
        album: gives frames until its limit.
        max_pairs: confused pairs shown per split.
    """
    found = [
        (named, place(evaluation), split)
        for named in members(runs)
        for evaluation in named.run.evaluations
        for split in evaluation.splits
        if split.classes or split.confusion is not None
    ]
    if not found:
        return None
    # Frames are shared out so that every split has some, rather than the first ones all.
    fair = max(1, min(max_pairs, album.limit // (2 * len(found)))) if max_pairs else 0
    blocks = []
    for number, (named, where, split) in enumerate(found):
        parts = [
            _bars(split),
            _confusion(split.confusion, f"{named.name}, {where}, {split.name}") if split.confusion else None,
            _pairs(split, split.confusion, album, max_pairs=max_pairs, with_frames=fair) if split.confusion else None,
        ]
        names = list(dict.fromkeys((named.name, where, split.name)))
        heads = [part for name in names for part in (" · ", name_of(name))][1:]
        title = element("summary", element("h3", *heads), _score(split))
        blocks.append(element("details", title, *parts, class_="split", open=number == 0 or len(found) <= 3))
    return element("section", element("h2", "Classes", id="classes"), *blocks)


def _score(split: Split) -> Markup | None:
    top1 = split.metrics.get("top1_acc")
    return None if top1 is None else element("span", f"top-1 {top1:.2f} %", class_="chip")


def _bars(split: Split) -> Markup | None:
    if not split.classes:
        return element("p", "No per_class.csv lies beside the results.", class_="absent")
    scored = [score for score in split.classes if score.videos and score.top1 is not None]
    empty = len(split.classes) - len(scored)
    # Of equal classes those come first that rest on more videos, at both ends.
    best = sorted(scored, key=lambda score: (-(score.top1 or 0.0), -score.videos, score.name))
    worst = sorted(scored, key=lambda score: (score.top1 or 0.0, -score.videos, score.name))
    chance = 1.0 / len(split.classes)
    note = f"Top-1 accuracy of a class; the dashed line is chance, {100 * chance:.1f} %."
    if empty:
        note += f" {empty} of {len(split.classes)} classes have no scored video and are left out."
    if len(best) <= 2 * MOST_BARS:
        blocks = [_bar_table("All classes, best first", best, chance)]
    else:
        blocks = [
            _bar_table(f"Best {MOST_BARS} of {len(best)} classes{_ties(best)}", best[:MOST_BARS], chance),
            _bar_table(f"Worst {MOST_BARS} of {len(best)} classes{_ties(worst)}", worst[:MOST_BARS], chance),
            element("details", element("summary", f"All {len(best)} classes"), _bar_table(None, best, chance)),
        ]
    return element("div", element("h4", "Best and worst classes"), element("p", note, class_="note"), *blocks)


def _ties(ranked: Sequence[ClassScore]) -> str:
    """Says when there are more equal classes than are shown."""
    equal = sum(score.top1 == ranked[0].top1 for score in ranked)
    return (
        f"; {equal} classes have {ranked[0].top1:.0f} %, those with most videos are shown" if equal > MOST_BARS else ""
    )


def _bar_table(caption: str | None, scores: Sequence[ClassScore], chance: float) -> Markup:
    rows = []
    for score in scores:
        top1 = score.top1 or 0.0
        confused = f" ({score.share:.0f} %)" if score.confused_with and score.share is not None else ""
        rows.append(
            element(
                "tr",
                element("th", name_of(score.name), scope="row", class_="class-name"),
                element(
                    "td", bar(top1 / 100, kind="good", reference=chance), class_="bar-cell", data_value=f"{top1:.6g}"
                ),
                number_cell(top1, f"{top1:.1f}"),
                number_cell(score.top5, None if score.top5 is None else f"{score.top5:.1f}"),
                number_cell(score.videos, f"{score.videos:d}"),
                element("td", name_of(score.confused_with), confused, class_="class-name"),
            )
        )
    header = [
        heading("class"),
        element("th", "top-1 accuracy (%)", bar_axis(), class_="bar-cell", scope="col"),
        *(heading(title, number=True) for title in ("top-1 (%)", "top-5 (%)", "videos")),
        heading("most often taken for (share of its videos)"),
    ]
    return table(header, rows, class_="sortable bars", caption=caption)


def _confusion(confusion: Confusion, title: str) -> Markup:
    count = len(confusion.names)
    few = count <= FEW_CLASSES
    what = "numbers are percent of the true class." if few else "point at a cell for its classes and counts."
    if count > NAMED_CLASSES:
        what += f" The {MOST_ENLARGED} most frequent errors are drawn larger than their cells."
    note = (
        f"Rows are true classes, columns predicted ones; {what} The shade is the root of the share of the true class:"
    )
    names = None
    if not few:
        items = [element("li", name_of(name)) for name in confusion.names]
        names = element(
            "details", element("summary", f"The {count} classes and their numbers"),
            element("ol", *items, start=0, class_="class-list"),
        )  # fmt: skip
    return element(
        "div",
        element("h4", "Confusion matrix"),
        element("p", note, class_="note"),
        scale_legend(),
        element("div", confusion_matrix(confusion, title=f"Confusion matrix of {title}"), class_="scroll"),
        names,
    )


def _pairs(split: Split, confusion: Confusion, album: FrameAlbum, *, max_pairs: int, with_frames: int) -> Markup | None:
    cells = confusion.errors(max_pairs)
    if not cells:
        wrong = int(confusion.counts.sum() - confusion.counts.trace())
        return element("p", "No video was classified wrongly.", class_="absent") if not wrong else None
    shares, names = confusion.shares(), confusion.names
    wanted = {(names[row], names[column]) for row, column in cells}
    wanted |= {(name, kind) for _, name in wanted for kind in (name, ANY)}
    videos = find_videos(split.predictions, wanted, limit=_TRIED) if split.predictions else {}
    cards = []
    for number, (row, column) in enumerate(cells):
        true, predicted = names[row], names[column]
        count = int(confusion.counts[row, column])
        head = element(
            "p", element("b", name_of(true)), " taken for ", element("b", name_of(predicted)),
            element("span", f"{count} of {int(confusion.counts[row].sum())} videos, {100 * shares[row, column]:.0f} %",
                    class_="chip"),
        )  # fmt: skip
        frames = None
        if number < with_frames and videos:
            frames = element(
                "div",
                _frame(videos[true, predicted], album, true, "not recognised", "wrong"),
                _frame(videos[predicted, predicted], album, predicted, "recognised", "right")
                if videos[predicted, predicted]
                else _frame(videos[predicted, ANY], album, predicted, "not recognised either", "right"),
                class_="frames",
            )
        cards.append(element("li", head, frames))
    note = "Pairs with most videos."
    if not split.predictions:
        note += " No predictions.csv lies beside the results, hence there are no frames."
    elif with_frames:
        note += " Left the middle frame of a video that was classified wrongly, right one of the class it was taken for"
        note += f"; frames of the first {with_frames} pairs." if with_frames < len(cells) else "."
    return element(
        "div",
        element("h4", "Most confused pairs"),
        element("p", note, class_="note"),
        element("ol", *cards, class_="pairs"),
    )


def _frame(videos: Sequence[str], album: FrameAlbum, name: str, outcome: str, kind: str) -> Markup:
    """The frame of the first video that can be decoded; of the first one what is wrong, if none can."""
    if not videos:
        picture, video = element("div", "no such video in predictions.csv", class_="no-frame"), ""
    else:
        shown = [(album.picture(video, alt=f"{name}, {outcome}"), video) for video in videos[:1]]
        if not shown[0][0].startswith("<img"):
            shown += [(album.picture(video, alt=f"{name}, {outcome}"), video) for video in videos[1:]]
        picture, video = next((pair for pair in shown if pair[0].startswith("<img")), shown[0])
    file = element("span", name_of(video.replace("\\", "/").rsplit("/", 1)[-1]), class_="file", title=video or None)
    caption = element("figcaption", name_of(name), f", {outcome}", file)
    return element("figure", picture, caption, class_=f"frame {kind}")
