// y[r, c] = weights[r] * (x[r, c] - shift[c]).        x, y (rows, columns), shift (columns), in parts   weights (rows)
// Rows are dealt out as lib/rows says.
import package::lib::part::{part, wide};
import package::lib::map::my_parts;
import package::lib::rows::{group_size, lanes, place_of};

struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<part>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> shift: array<wide>;
@group(0) @binding(4) var<storage, read_write> y: array<wide>;

@compute @workgroup_size(group_size)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  if (at.row >= p.rows) { return; }
  let base = at.row * p.columns;
  let weight = weights[at.row];
  for (var c = at.lane; c < p.columns; c += lanes) { y[base + c] = weight * (wide(x[base + c]) - shift[c]); }
}

// sum[i] += addend[i], in place: rows is 1.
@group(0) @binding(1) var<storage, read> addend: array<part>;
@group(0) @binding(2) var<storage, read_write> sum: array<wide>;

@compute @workgroup_size(256)
fn accumulate(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
              @builtin(local_invocation_index) lane: u32) {
  let mine = my_parts(group, groups, lane, p.columns);
  for (var i = mine.x; i < mine.y; i++) { sum[i] += wide(addend[i]); }
}
