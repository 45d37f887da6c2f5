// y[c] = sum over rows of x[r, c], in row order.                                     x (rows, columns), y (columns)
// One invocation a column. The last stage of column reductions: rows is small (the slices of a first stage).
import package::lib::elem::elem;

struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x;
  if (column >= p.columns) { return; }
  var sum = 0.0;
  for (var row = 0u; row < p.rows; row++) { sum += x[row * p.columns + column]; }
  y[column] = elem(sum);
}
