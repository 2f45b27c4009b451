"""How states look on a run's page: never by colour alone."""

from __future__ import annotations

from penstock.compile import drawing
from penstock.compile.targets.local.record import State

MARKS = {
    State.PENDING: "·",
    State.RUNNING: "▶",
    State.SUCCEEDED: "✓",
    State.FAILED: "✗",
    State.SKIPPED: "↷",
    State.CANCELLED: "■",
}

STYLE = (
    """
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #5c6775; --line: #d9dee5; --paper: #fff; --soft: #f5f7f9;
  --group: #f8fafb; --link: #1f5fa8; --good: #2c7a3f; --bad: #b3261e; --busy: #2f6fb7; --odd: #8a6100; --off: #8a93a0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --quiet: #9aa5b3; --line: #39424e; --paper: #14181d;
  --soft: #1f262e; --group: #181d23; --link: #8ab8f0; --good: #6cc381; --bad: #ff8a80; --busy: #7fb2ee; --odd: #e0b04c;
  --off: #7c8794; } }
* { box-sizing: border-box; }
body { margin: 2rem auto; padding: 0 1.25rem; max-width: 76rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
header { display: flex; gap: .9rem; align-items: center; flex-wrap: wrap; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .7rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: .92rem; margin: .8rem 0 .1rem; color: var(--quiet); font-weight: 600; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
small, .quiet { color: var(--quiet); } small { font-size: .88em; }
code, pre { font: .88em/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; max-height: 16em; overflow: auto; background: var(--soft); padding: .5rem .7rem;
  border-radius: 5px; }
.SUCCEEDED { --state: var(--good); } .FAILED { --state: var(--bad); } .RUNNING { --state: var(--busy); }
.CANCELLED { --state: var(--odd); } .SKIPPED, .PENDING { --state: var(--off); }
.chip { color: var(--state); border: 1.5px solid var(--state); border-radius: 99px; padding: .05rem .7rem;
  font-weight: 600; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 1rem 0; }
.facts dt { color: var(--quiet); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.errors, .error { border-left: 5px solid var(--bad); background: var(--soft); padding: .5rem .9rem; margin: 1rem 0;
  overflow-wrap: anywhere; }
.errors p { margin: .2rem 0; } .errors a { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92em; }
th, td { text-align: left; padding: .28rem 1.1rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
td:first-child { overflow-wrap: normal; } th { font-weight: 600; color: var(--quiet); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
details.task { border: 1px solid var(--line); border-radius: 7px; padding: .45rem .9rem; margin: .5rem 0; }
details.task[open] { padding-bottom: .8rem; } details.task > summary { cursor: pointer; }
details.task > summary span { color: var(--state); font-weight: 700; } details p { margin: .3rem 0; }
details details { margin-top: .5rem; } summary { cursor: pointer; } details details > summary { color: var(--quiet); }
:target { border-color: var(--link) !important; box-shadow: 0 0 0 1px var(--link); }
.timeline { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr max-content; gap: .3rem .9rem;
  align-items: center; font-size: .92em; }
.timeline .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; max-width: 18rem; color: inherit; }
.timeline .took { color: var(--quiet); text-align: right; font-variant-numeric: tabular-nums; }
.track { position: relative; height: .95rem; background: var(--soft); border-radius: 3px; }
.bar { position: absolute; top: 0; bottom: 0; min-width: 3px; border-radius: 3px; background: var(--state); }
.bar.FAILED, .bar.CANCELLED { background: repeating-linear-gradient(45deg, var(--state) 0 5px, transparent 5px 8px);
  border: 1.5px solid var(--state); }
.axis { position: relative; height: 1.2rem; color: var(--quiet); font-size: .86em; }
.axis span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.axis span::before { content: ""; position: absolute; left: 50%; top: -.35rem; height: .3rem; border-left: 1px solid
  var(--off); }
.axis span:first-child { transform: none; } .axis span:first-child::before { left: 0; }
"""
    + drawing.STYLE.lstrip("\n")
    + """@media print { body { margin: 0; max-width: none; font-size: 11px; color-scheme: light; }
  .scroll { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } svg { max-width: 100%; height: auto; }
  details.task, tr { break-inside: avoid; } pre { max-height: none; } }
"""
)


def seconds_text(seconds: float | None) -> str:
    """Return a duration for people: 0.04 s, 3.2 s, 2 min 5 s, 1 h 3 min."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def bytes_text(count: int) -> str:
    """Return a size for people: 812 bytes, 3.2 kB, 1.25 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
