// y[r, c] = weights[r] * (x[r, c] - shift[c]).                      x, y (rows, columns)   weights (rows)   shift (columns)
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> shift: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.rows * p.columns) { return; }
  y[i] = weights[i / p.columns] * (f32(x[i]) - shift[i % p.columns]);
}

// total[i] += part[i], in place: rows is 1.
@group(0) @binding(1) var<storage, read> part: array<elem>;
@group(0) @binding(2) var<storage, read_write> total: array<f32>;

@compute @workgroup_size(64)
fn accumulate(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
              @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.columns) { total[i] += f32(part[i]); }
}
