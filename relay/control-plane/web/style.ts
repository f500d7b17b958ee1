/** The one style sheet of all pages. */
export const style = `
:root {
  --ground: #f4f5f8; --card: #ffffff; --text: #171a21; --quiet: #5b6373; --line: #d9dde5;
  --accent: #2456d6; --accent-text: #ffffff; --accent-soft: #e9effc; --field: #ffffff;
  --bad: #b3261e; --bad-soft: #fdecea; --good: #176b3a; --good-soft: #e5f5ec; --code: #f0f2f6;
  --shadow: 0 1px 2px rgb(16 24 40 / .06), 0 8px 24px rgb(16 24 40 / .06);
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1217; --card: #181c23; --text: #e8ebf1; --quiet: #9aa4b5; --line: #313845;
    --accent: #7ea2ff; --accent-text: #0b1020; --accent-soft: #1d2740; --field: #11151b;
    --bad: #ff9a92; --bad-soft: #3a1c1a; --good: #7fd6a3; --good-soft: #14301f; --code: #11151b;
    --shadow: 0 1px 2px rgb(0 0 0 / .5), 0 8px 24px rgb(0 0 0 / .3);
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; min-height: 100vh; min-height: 100dvh; display: flex; flex-direction: column;
  background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
.top { padding: 1.25rem 1.25rem 0; text-align: center; }
.brand {
  display: inline-flex; align-items: center; gap: .5rem; color: var(--text); font-weight: 650;
  text-decoration: none; letter-spacing: -.01em; padding: .25rem .5rem; border-radius: .5rem;
}
.brand svg { color: var(--accent); }
main { flex: 1; width: 100%; max-width: 30rem; margin: 0 auto; padding: 1.25rem 1rem 2rem; }
main:has(.wide) { max-width: 44rem; }
footer { padding: 0 1rem 1.5rem; text-align: center; color: var(--quiet); font-size: .8125rem; line-height: 1.7; }
footer a { color: inherit; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 1rem; padding: 1.75rem;
  box-shadow: var(--shadow);
}
.card + .card { margin-top: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; letter-spacing: -.02em; margin: 0 0 .5rem; }
h2 { font-size: 1.0625rem; letter-spacing: -.01em; margin: 1.5rem 0 .5rem; }
.card > h2:first-child { margin-top: 0; }
p { margin: 0 0 .875rem; }
p:last-child { margin-bottom: 0; }
a { color: var(--accent); text-underline-offset: .15em; }
.note, .quiet { color: var(--quiet); font-size: .875rem; }
.facts {
  margin: 0 0 1.25rem; padding: .75rem .875rem; background: var(--accent-soft); border-radius: .625rem;
  display: grid; grid-template-columns: max-content 1fr; gap: .125rem 1rem; font-size: .9375rem;
}
.facts dt { color: var(--quiet); }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
label { display: block; font-weight: 600; font-size: .9375rem; margin: 0 0 .25rem; }
.field { margin: 0 0 1rem; }
input[type=text], input[type=password], input:not([type]) {
  width: 100%; min-height: 2.75rem; padding: .5rem .75rem; font: inherit; color: var(--text);
  background: var(--field); border: 1px solid var(--line); border-radius: .625rem;
}
input[readonly] { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .875rem; }
button, .button {
  display: flex; align-items: center; justify-content: center; gap: .5rem; width: 100%; min-height: 2.75rem;
  padding: .5rem 1rem; font: inherit; font-weight: 600; text-decoration: none; text-align: center;
  color: var(--text); background: var(--card); border: 1px solid var(--line); border-radius: .625rem; cursor: pointer;
  overflow-wrap: anywhere; min-width: 0;
}
button:hover, .button:hover { border-color: var(--accent); }
button:disabled { opacity: .6; cursor: default; }
.primary { color: var(--accent-text); background: var(--accent); border-color: var(--accent); }
.danger { color: var(--bad); border-color: currentColor; }
.small { width: auto; min-height: 2.25rem; padding: .25rem .75rem; font-size: .875rem; }
.choices { display: grid; gap: .625rem; margin: 0; }
.or {
  display: flex; align-items: center; gap: .75rem; margin: 1.25rem 0; color: var(--quiet); font-size: .875rem;
}
.or::before, .or::after { content: ""; flex: 1; border-top: 1px solid var(--line); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
input:focus-visible { outline-width: 2px; outline-offset: 0; }
.alert, .good { padding: .75rem .875rem; border-radius: .625rem; margin: 0 0 1rem; font-size: .9375rem; }
.alert { color: var(--bad); background: var(--bad-soft); }
.good { color: var(--good); background: var(--good-soft); }
details > summary { cursor: pointer; font-weight: 600; font-size: .9375rem; padding: .375rem 0; border-radius: .375rem; }
details[open] > summary { margin-bottom: .75rem; }
pre {
  margin: 0 0 .875rem; padding: .75rem .875rem; overflow-x: auto; background: var(--code);
  border: 1px solid var(--line); border-radius: .625rem; font-size: .875rem;
}
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .9em; }
pre code { font-size: 1em; }
.rows { list-style: none; margin: 0; padding: 0; }
.rows > li {
  display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .5rem 1rem;
  padding: .75rem 0; border-top: 1px solid var(--line);
}
.rows > li:first-child { border-top: 0; padding-top: .25rem; }
.rows > li:last-child { padding-bottom: 0; }
.rows .what { min-width: 0; flex: 1 1 14rem; overflow-wrap: anywhere; }
.rows .what > span:not(.tag) { display: block; color: var(--quiet); font-size: .875rem; }
.tag {
  display: inline-block; margin-left: .375rem; padding: 0 .5rem; border-radius: 1rem; font-size: .75rem; font-weight: 600;
  color: var(--quiet); background: var(--code); border: 1px solid var(--line); vertical-align: .1em;
}
.tag.live { color: var(--good); background: var(--good-soft); border-color: transparent; }
.rows details > summary { color: var(--bad); font-size: .875rem; }
.rows details[open] { flex-basis: 100%; }
.inline { display: flex; flex-wrap: wrap; gap: .5rem; align-items: end; margin-top: .75rem; }
.inline .field { flex: 1 1 12rem; margin: 0; }
.inline .small { min-height: 2.75rem; padding-inline: 1.25rem; }
.codes {
  list-style: none; margin: 0 0 1rem; padding: .875rem; columns: 2; background: var(--code);
  border: 1px solid var(--line); border-radius: .625rem;
  font: 600 1rem/1.9 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
.who { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .5rem 1rem; }
.who p { margin: 0; }
.actions { margin-top: 1.25rem; }
.scripted [hidden], html:not(.scripted) .with-script { display: none; }
@media (max-width: 26rem) { .card { padding: 1.25rem; } .codes { columns: 1; } }
@media (prefers-reduced-motion: no-preference) { button, .button { transition: border-color .12s; } }
@media print { .top, footer, button, .button { display: none; } .card { border: 0; box-shadow: none; } }
`;
