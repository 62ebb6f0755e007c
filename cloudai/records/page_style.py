"""How the page of a report looks."""

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #fff; --ink: #1d2125;
  --soft: #667079; --line: #e3e5e8; --completed: #2f9e58; --failed: #d3382f;
  --cancelled: #c9820a; --skipped: #8a94a0; --running: #2f7dc9; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --card: #1c2024;
  --ink: #e6e9ec; --soft: #98a2ac; --line: #30363c; --completed: #4cc27a; --failed: #ff6b61;
  --cancelled: #eba937; --skipped: #7d8792; --running: #5aa9f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 68rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .6rem; display: inline-block; }
.about { color: var(--soft); margin: 0 0 1.4rem; display: flex; flex-wrap: wrap;
  gap: .1rem 1.2rem; overflow-wrap: anywhere; }
.about b { font-weight: 600; color: var(--ink); }
.badge { font-size: .78rem; font-weight: 600; border: 1px solid currentColor; color: var(--soft);
  border-radius: 1rem; padding: .05rem .55rem; vertical-align: middle; white-space: nowrap; }
.badge.completed { color: var(--completed); } .badge.failed { color: var(--failed); }
.badge.cancelled { color: var(--cancelled); } .badge.skipped { color: var(--skipped); }
.badge.running { color: var(--running); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(6.4rem, 1fr));
  gap: .6rem; margin-bottom: .9rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .7rem; }
.tile b { display: block; font-size: 1.3rem; line-height: 1.25; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.tile.completed b { color: var(--completed); } .tile.failed b { color: var(--failed); }
.tile.cancelled b { color: var(--cancelled); } .tile.running b { color: var(--running); }
.bar { display: flex; gap: 2px; height: .8rem; border-radius: .4rem; overflow: hidden;
  margin-bottom: 1.4rem; }
.part { min-width: 2px; flex-basis: 0; background: var(--running); }
.part.completed { background: var(--completed); } .part.failed { background: var(--failed); }
.part.cancelled { background: var(--cancelled); } .part.skipped { background: var(--skipped); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .9rem 1rem; margin-bottom: .9rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr));
  gap: 0 .9rem; align-items: start; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font: .85rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--ground); border: 1px solid var(--line); border-radius: .4rem;
  padding: .6rem .8rem; margin: .4rem 0; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; }
pre.output { max-height: 24rem; overflow-y: auto; }
details { border-top: 1px solid var(--line); padding: .4rem 0; }
h2 + details, section > details:only-child { border-top: 0; }
details p { margin: .4rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary h2 { margin: 0; }
svg { display: block; max-width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, "Segoe UI", Roboto, sans-serif; }
svg .lane { fill: var(--ground); }
svg .task { fill: var(--running); } svg .task.completed { fill: var(--completed); }
svg .task.failed { fill: var(--failed); } svg .task.cancelled { fill: var(--cancelled); }
svg .tick { stroke: var(--line); }
footer { color: var(--soft); font-size: .85rem; margin-top: 1.4rem; }
"""
