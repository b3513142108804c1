"""What all our HTML pages share: a document that needs nothing beside itself, its look, text from outside.

A page's Content-Security-Policy forbids everything that it does not name. Text from outside is made printable
and escaped by `shown` or `prose`, always.
"""

from __future__ import annotations

import re
from html import escape

from topreward_ros.core.printable import printable

#: Of a page without pictures and scripts.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_LONGEST_TITLE = 120
_CODE = re.compile(r"`([^`]+)`")
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 16px 20px 48px; background: #fff; color: #1f2328;
  font: 14px/1.45 -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", Helvetica, Arial, sans-serif; }
h1 { font-size: 22px; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 4px; overflow-wrap: anywhere; }
p { margin: 2px 0 6px; overflow-wrap: anywhere; } .dim { color: #57606a; }
.warning { background: #c62828; color: #fff; font-weight: 600; padding: 6px 10px; border-radius: 4px; }
.note { background: #fff8c5; padding: 4px 10px; border-radius: 4px; overflow-wrap: anywhere; margin: 4px 0; }
section { border-top: 1px solid #d0d7de; margin-top: 22px; padding-top: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(155px, 1fr)); gap: 10px;
  margin: 14px 0; }
.tile { border: 1px solid #d0d7de; border-radius: 6px; padding: 8px 10px; }
.tile b { display: block; font-size: 22px; line-height: 1.2; font-variant-numeric: tabular-nums; }
figure { margin: 0; min-width: 0; } figcaption { font-size: 12px; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 11px; fill: #57606a; }
svg text.label { fill: #1f2328; stroke: #fff; stroke-width: 3px; paint-order: stroke; }
code { font-size: 12px; background: #f3f4f6; padding: 0 3px; border-radius: 3px; }
.legend { font-size: 12px; color: #57606a; } .key { margin-right: 12px; white-space: nowrap; }
.key i { display: inline-block; width: 14px; height: 4px; border-radius: 2px; margin-right: 4px;
  vertical-align: 3px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: 6px 0; }
th { color: #57606a; font-weight: 500; } thead th { border-bottom: 1px solid #d0d7de; }
td, th { text-align: left; padding: 3px 14px 3px 0; vertical-align: top; font-variant-numeric: tabular-nums; }
"""


def document(title: str, style: str, body: str, policy: str = POLICY) -> str:
    """A page. ``title`` may come from outside; ``style`` adds to the common one, ``body`` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{shown(title, _LONGEST_TITLE)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        f"{body}</body>\n</html>\n"
    )


def shown(text: str, longest: int = 500) -> str:
    """Text from outside, fit for the content of an element and for an attribute in quotes."""
    return escape(printable(text, longest), quote=True)


def prose(text: str, longest: int = 1000) -> str:
    """A sentence of ours, which may name what is from outside: what stands between backticks is code.

    >>> prose("see `topreward evaluate` <b>")
    'see <code>topreward evaluate</code> &lt;b&gt;'
    """
    return _CODE.sub(r"<code>\1</code>", shown(text, longest))
