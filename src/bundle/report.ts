import type { VerifyReport } from './verify.ts'

/** A report as lines for a person. */
export function reportText(report: VerifyReport): string {
  const lines = report.checks.map(
    ({ name, ok, reason }) => `${ok ? 'ok    ' : 'FAILED'}  ${name}${reason && `: ${reason}`}`,
  )
  const verdict = report.ok
    ? `The bundle is whole: ${report.bundleId.slice(0, 16)}`
    : 'The bundle is not to be trusted.'
  return [...lines, ...report.notes.map((note) => `note    ${note}`), verdict].join('\n')
}

/** A report as one HTML file that needs nothing else: no script, no style sheet, no picture. */
export function reportHtml(report: VerifyReport): string {
  const { manifest } = report
  const rows = (header: readonly string[], cells: readonly (readonly string[])[]) =>
    `<table><tr>${header.map((title) => `<th>${escapeHtml(title)}</th>`).join('')}</tr>${cells
      .map((row) => `<tr>${row.map((cell) => `<td>${escapeHtml(cell)}</td>`).join('')}</tr>`)
      .join('')}</table>`
  const percent = (value: number) => `${(100 * value).toFixed(2)} %`
  const parts = [
    `<h1 class="${report.ok ? 'ok' : 'bad'}">${report.ok ? 'Verified' : 'Not to be trusted'}</h1>`,
    `<p>Bundle <code>${escapeHtml(report.bundleId || 'unknown')}</code>, signature: ${report.signature}.</p>`,
    rows(
      ['check', 'result', 'reason'],
      report.checks.map(({ name, ok, reason }) => [name, ok ? 'ok' : 'FAILED', reason]),
    ),
    report.notes.length > 0 ? `<ul>${report.notes.map((note) => `<li>${escapeHtml(note)}</li>`).join('')}</ul>` : '',
  ]
  if (manifest) {
    const { model_metadata: model, capabilities, files } = manifest
    parts.push(
      '<h2>What it says of itself</h2>',
      `<p>Built ${escapeHtml(manifest.build_timestamp)} by Nexus ${escapeHtml(manifest.tool_version)}, seed ${manifest.seed}; ${escapeHtml(model.architecture)}, ${model.backbone_parameters} parameters in ${model.storage}, ${model.backbone_ratio.toFixed(3)} of the original.</p>`,
      rows(
        ['capability', 'version', 'metric', 'score', 'retention', 'at least', 'n', 'verdict', 'restricted'],
        Object.entries(capabilities).map(([name, c]) => [
          ...[name, c.adapter_version, c.metric, percent(c.score), percent(c.retention), percent(c.lower_bound)],
          ...[String(c.n), c.verdict, c.restricted ? 'yes' : 'no'],
        ]),
      ),
      rows(
        ['file', 'bytes', 'sha256'],
        Object.entries(files).map(([path, { size, sha256 }]) => [path, String(size), sha256]),
      ),
    )
  }
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Nexus bundle: ${report.ok ? 'verified' : 'not to be trusted'}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-size:.9rem}td,th{border:1px solid #8886;padding:.3rem .6rem;text-align:left;overflow-wrap:anywhere}
.ok{color:#176b2c}.bad{color:#a61b1b}</style></head>
<body>
${parts.filter(Boolean).join('\n')}
</body></html>
`
}

function escapeHtml(text: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
  return text.replace(/[&<>"]/g, (character) => names[character])
}
