/** The look of a report: one style sheet without any file beside it. */
export const REPORT_STYLE = `
:root {
  color-scheme: light dark;
  --paper: #ffffff; --raised: #ffffff; --sunken: #f5f6f9; --ink: #1d2029; --muted: #626878; --rule: #e2e5ec; --accent: #0b6fb8;
  --good: #11875d; --warn: #b3541e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161c; --raised: #1b1e26; --sunken: #20242e; --ink: #e8eaf0; --muted: #9aa1b2; --rule: #2e3340; --accent: #5fb3f0;
    --good: #4fc39a; --warn: #f0a070;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, .top > div, footer > div { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
.top { padding: 40px 0 8px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 6px; font-weight: 650; overflow-wrap: anywhere; }
h2 { font-size: 19px; letter-spacing: -.005em; margin: 0 0 4px; font-weight: 620; }
section { padding: 36px 0 0; }
section > p { margin: 0 0 16px; color: var(--muted); max-width: 74ch; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
code, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .92em; overflow-wrap: anywhere; }
.kicker { color: var(--muted); margin: 0 0 6px; font-size: 13px; letter-spacing: .06em; text-transform: uppercase; }
.sub { color: var(--muted); margin: 0; }
.status { font-weight: 600; color: var(--good); white-space: nowrap; }
.status.open { color: var(--warn); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); gap: 1px; margin: 26px 0 0;
  background: var(--rule); border: 1px solid var(--rule); border-radius: 10px; overflow: hidden; }
.figures div { background: var(--raised); padding: 16px 18px; }
.figures dt { color: var(--muted); font-size: 13px; }
.figures dd { margin: 2px 0 0; font-size: 23px; white-space: nowrap; font-weight: 620; letter-spacing: -.01em; font-variant-numeric: tabular-nums; }
.figures small { display: block; white-space: normal; font-size: 12.5px; font-weight: 400; letter-spacing: 0; color: var(--muted); line-height: 1.4; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; margin-top: 16px; }
.charts.small { grid-template-columns: repeat(3, minmax(0, 1fr)); }
figure { margin: 0; }
.chart { border: 1px solid var(--rule); border-radius: 10px; padding: 12px 10px 6px; background: var(--raised); min-width: 0; }
.chart figcaption { font-weight: 600; font-size: 14px; padding: 0 6px 4px; }
.chart figcaption small { font-weight: 400; color: var(--muted); font-size: 12.5px; margin-left: 8px; white-space: nowrap; }
.chart .legend { font-weight: 400; font-size: 12.5px; gap: 0 14px; padding-top: 3px; }
.chart svg { display: block; width: 100%; height: auto; }
.chart rect[fill="#ffffff"] { fill: transparent; }
.chart text[fill="#23262f"] { fill: var(--ink); }
.chart text[fill="#6b7080"] { fill: var(--muted); }
.chart path[stroke="#e4e6ec"] { stroke: var(--rule); }
.panel { border: 1px solid var(--rule); border-radius: 10px; background: var(--raised); padding: 14px; margin-top: 16px; }
.panel header { display: flex; flex-wrap: wrap; gap: 2px 18px; align-items: baseline; padding: 0 2px 10px; }
.panel h3 { font-size: 15px; margin: 0; font-weight: 620; overflow-wrap: anywhere; }
.panel header .own { margin-left: auto; font-variant-numeric: tabular-nums; }
.views { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 10px; }
.views.two { grid-template-columns: repeat(2, minmax(0, 1fr)); margin-top: 10px; }
.views svg { display: block; width: 100%; height: auto; border-radius: 5px; background: #777; }
.views figcaption { font-size: 13px; color: var(--muted); padding: 5px 2px 0; line-height: 1.4; }
.views b { color: var(--ink); font-weight: 600; }
.key { display: inline-block; width: .72em; height: .72em; border-radius: 3px; margin: 0 .4em 0 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13.5px; }
.chip { white-space: nowrap; margin-right: 10px; }
details { margin-top: 10px; }
summary { cursor: pointer; color: var(--accent); font-size: 13.5px; padding: 2px; }
.scroll { overflow-x: auto; margin-top: 12px; border: 1px solid var(--rule); border-radius: 10px; background: var(--raised); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 7px 14px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; font-size: 13px; line-height: 1.3; color: var(--muted); vertical-align: bottom; }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
td.text { white-space: normal; }
.words th, .words td { text-align: left; }
tbody tr:last-child td, tbody tr:last-child th { border-bottom: 0; }
tbody th { color: var(--ink); font-size: 14px; font-weight: 500; line-height: inherit; vertical-align: middle; }
tr.best td, .epochs tr.best td:first-child { background: color-mix(in srgb, var(--accent) 10%, var(--raised)); font-weight: 600; }
.epochs { max-height: 460px; overflow: auto; }
.epochs th, .epochs td { padding: 6px 11px; }
.epochs thead th { position: sticky; top: 0; background: var(--sunken); white-space: normal; min-width: 76px; z-index: 1; }
.epochs th:first-child, .epochs td:first-child { position: sticky; left: 0; min-width: 0; background: var(--raised); }
.epochs thead th:first-child { background: var(--sunken); z-index: 2; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 0 28px; margin: 12px 0 0; font-size: 14px; }
dl.facts div { display: flex; gap: 16px; justify-content: space-between; border-bottom: 1px solid var(--rule); padding: 6px 2px; min-width: 0; }
dl.facts dt { color: var(--muted); flex: none; }
dl.facts dd { margin: 0; text-align: right; min-width: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.beside { align-items: start; gap: 16px 32px; }
.beside dl.facts { grid-template-columns: minmax(0, 1fr); margin: 0; }
.default { color: var(--muted); }
footer { margin-top: 48px; border-top: 1px solid var(--rule); padding: 18px 0 40px; color: var(--muted); font-size: 13px; }
@media (max-width: 900px) { .charts.small { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (max-width: 680px) {
  main, .top > div, footer > div { padding: 0 16px; }
  .top { padding-top: 26px; }
  h1 { font-size: 25px; }
  .charts, .charts.small { grid-template-columns: minmax(0, 1fr); }
  .views { grid-template-columns: minmax(0, 1fr); }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  dl.facts { grid-template-columns: minmax(0, 1fr); }
}
@media print {
  body { font-size: 12px; }
  .chart, .panel, tr { break-inside: avoid; }
  .epochs { max-height: none; }
}
`;
