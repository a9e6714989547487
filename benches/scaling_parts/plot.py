"""Lines over two axes, as an SVG file of its own."""

import math
from html import escape

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#4b4b4b"]
WIDTH, HEIGHT = 860, 480
LEFT, RIGHT, TOP, BOTTOM = 76, 210, 48, 62
FONT = "font-family='system-ui, sans-serif' font-size"


class Axis:
    """Values to pixels; `begin` and `end` are pixels."""

    def __init__(self, values, begin, end, log=False, zero=False):
        low, high = min(values), max(values)
        if zero:
            low = min(0.0, low)
        if low == high:
            low, high = (low / 2, high * 2) if log and low > 0 else (low - 0.5, high + 0.5)
        self.log = log
        self.ticks = decades(low, high) if log else steps(low, high)
        self.low, self.high = min(low, self.ticks[0]), max(high, self.ticks[-1])
        self.begin, self.end = begin, end

    def at(self, value):
        scale = math.log if self.log else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return self.begin + share * (self.end - self.begin)


def steps(low, high):
    """Round values, some five to nine of them, that enclose both."""
    rough = (high - low) / 6
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def decades(low, high):
    """1, 2, 5, 10, ... that enclose both."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = [factor * 10.0 ** power for power in range(first, last + 1) for factor in (1, 2, 5)]
    begin = max(value for value in every if value <= low * (1 + 1e-9))
    end = min(value for value in every if value >= high * (1 - 1e-9))
    return [value for value in every if begin <= value <= end]


def lines(title, x_label, y_label, series, log_x=False):
    """`series`: (name, colour, dash pattern, points of x, y, and whether it is hollow)."""
    points = [point for *_, own in series for point in own]
    x = Axis([point[0] for point in points], LEFT, WIDTH - RIGHT, log=log_x)
    y = Axis([point[1] for point in points], HEIGHT - BOTTOM, TOP, zero=True)
    text = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}' "
        f"role='img' aria-label='{escape(title, quote=True)}'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#ffffff'/>",
        f"<text x='{LEFT}' y='26' {FONT}='16' fill='#111111'>{escape(title)}</text>",
    ]
    text += grid(x, y, x_label, y_label)
    for name, colour, dash, own in series:
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b, _ in own)
        style = f" stroke-dasharray='{dash}'" if dash else ""
        text.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'{style}/>")
        for a, b, hollow in own:
            fill = "#ffffff" if hollow else colour
            text.append(f"<circle cx='{x.at(a):.1f}' cy='{y.at(b):.1f}' r='4' fill='{fill}' stroke='{colour}' "
                        "stroke-width='2'/>")
    text += legend(series)
    return "\n".join([*text, "</svg>"]) + "\n"


def grid(x, y, x_label, y_label):
    text = []
    for value in x.ticks:
        at = x.at(value)
        text.append(f"<line x1='{at:.1f}' y1='{TOP}' x2='{at:.1f}' y2='{HEIGHT - BOTTOM}' stroke='#e4e4e4'/>")
        text.append(f"<text x='{at:.1f}' y='{HEIGHT - BOTTOM + 20}' {FONT}='13' fill='#333333' "
                    f"text-anchor='middle'>{value:,.10g}</text>")
    for value in y.ticks:
        at = y.at(value)
        text.append(f"<line x1='{LEFT}' y1='{at:.1f}' x2='{WIDTH - RIGHT}' y2='{at:.1f}' stroke='#e4e4e4'/>")
        text.append(f"<text x='{LEFT - 8}' y='{at + 4:.1f}' {FONT}='13' fill='#333333' "
                    f"text-anchor='end'>{value:,.10g}</text>")
    middle, centre = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    text.append(f"<text x='{middle}' y='{HEIGHT - 16}' {FONT}='14' fill='#111111' "
                f"text-anchor='middle'>{escape(x_label)}</text>")
    text.append(f"<text x='20' y='{centre}' {FONT}='14' fill='#111111' text-anchor='middle' "
                f"transform='rotate(-90 20 {centre})'>{escape(y_label)}</text>")
    return text


def legend(series):
    text, left = [], WIDTH - RIGHT + 18
    for number, (name, colour, dash, _) in enumerate(series):
        at = TOP + 10 + 21 * number
        style = f" stroke-dasharray='{dash}'" if dash else ""
        text.append(f"<line x1='{left}' y1='{at}' x2='{left + 30}' y2='{at}' stroke='{colour}' stroke-width='2'{style}/>")
        text.append(f"<text x='{left + 38}' y='{at + 4}' {FONT}='13' fill='#111111'>{escape(name)}</text>")
    return text
