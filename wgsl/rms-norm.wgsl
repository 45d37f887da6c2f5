// y = x / sqrt(mean(x^2) + eps) * weight, row by row.            x, y (rows, columns)   weight (columns), all in parts
// Rows are dealt out as lib/rows says.
// forward saves rstd = 1 / sqrt(mean(x^2) + eps), f32, one a row, and the backward entries read it.
import package::lib::part::{part, wide, part_size, total};
import package::lib::rows::{group_size, lanes, place_of, sum_lanes};

struct Params { rows: u32, columns: u32, eps: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<part>;
@group(0) @binding(2) var<storage, read> weight: array<part>;
@group(0) @binding(3) var<storage, read_write> y: array<part>;
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size(group_size)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let columns = select(0u, p.columns, at.row < p.rows);
  var squares = wide();
  for (var c = at.lane; c < columns; c += lanes) {
    let value = wide(x[base + c]);
    squares += value * value;
  }
  let scale = inverseSqrt(sum_lanes(at.lane, total(squares)) / f32(p.columns * part_size) + p.eps);
  if (at.lane == 0u && at.row < p.rows) { rstd[at.row] = scale; }
  for (var c = at.lane; c < columns; c += lanes) {
    y[base + c] = part(wide(x[base + c]) * scale * wide(weight[c]));
  }
}

// dx = rstd * (dy * weight - xhat * mean(dy * weight * xhat)),   xhat = x * rstd
@group(0) @binding(3) var<storage, read> dy: array<part>;
@group(0) @binding(4) var<storage, read> scales: array<f32>; // what forward saved as rstd
@group(0) @binding(5) var<storage, read_write> dx: array<part>;

@compute @workgroup_size(group_size)
fn backward_x(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
              @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let columns = select(0u, p.columns, at.row < p.rows);
  let scale = scales[min(at.row, p.rows - 1u)];
  var dots = wide();
  for (var c = at.lane; c < columns; c += lanes) {
    dots += wide(dy[base + c]) * wide(weight[c]) * wide(x[base + c]);
  }
  let slope = sum_lanes(at.lane, total(dots)) * scale * scale / f32(p.columns * part_size);
  for (var c = at.lane; c < columns; c += lanes) {
    dx[base + c] = part(scale * (wide(dy[base + c]) * wide(weight[c]) - wide(x[base + c]) * slope));
  }
}

// dweight = sum over rows of dy * xhat, in two stages so that the order of addition never changes: first each of
// `slices` row ranges sums its own rows, then column_sum.wgsl adds the slices.
@group(0) @binding(6) var<storage, read_write> slice_sums: array<wide>; // (slices, columns)
override slices: u32 = 32;

@compute @workgroup_size(64)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column = group.x * 64u + lane;
  if (column >= p.columns) { return; }
  let rows_each = (p.rows + slices - 1u) / slices;
  let end = min(p.rows, (group.y + 1u) * rows_each);
  var sum = wide();
  for (var row = group.y * rows_each; row < end; row++) {
    sum += wide(dy[row * p.columns + column]) * wide(x[row * p.columns + column]) * scales[row];
  }
  slice_sums[group.y * p.columns + column] = sum;
}
