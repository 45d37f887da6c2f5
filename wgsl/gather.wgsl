// y[r, j] = x[r, indices[r, j]]: picks `picks` columns of each row.   x (rows, columns)   indices, y (rows, picks)
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { rows: u32, columns: u32, picks: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.rows * p.picks) { return; }
  y[i] = x[i / p.picks * p.columns + min(indices[i], p.columns - 1u)];
}

// dx[r, c] = sum of dy[r, j] where indices[r, j] = c: one invocation an element of dx, so no two write the same.
@group(0) @binding(1) var<storage, read> dy: array<elem>;
@group(0) @binding(3) var<storage, read_write> dx: array<elem>;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.rows * p.columns) { return; }
  let base = i / p.columns * p.picks;
  var sum = 0.0;
  for (var j = 0u; j < p.picks; j++) {
    if (min(indices[base + j], p.columns - 1u) == i % p.columns) { sum += f32(dy[base + j]); }
  }
  dx[i] = elem(sum);
}
