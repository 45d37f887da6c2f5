// y[r] = sum of x[r, c] over c.                                                    x (size), seen as rows of `columns`
// One workgroup a row; the last row may be short, so that any size can be folded.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::reduce::sum_workgroup;

struct Params { size: u32, rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn row_sum(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let row = flat_workgroup(group, groups);
  if (row >= p.rows) { return; }
  let end = min(p.size, (row + 1u) * p.columns);
  var sum = 0.0;
  for (var i = row * p.columns + lane; i < end; i += 64u) { sum += f32(x[i]); }
  sum = sum_workgroup(lane, sum);
  if (lane == 0u) { y[row] = sum; }
}

// dx[r, c] = dy[r]
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<elem>;

@compute @workgroup_size(64)
fn spread(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { dx[i] = elem(dy[i / p.columns]); }
}
