// y[r] = sum of x[r, c] over c.                                       x (size), seen as rows of `columns`, in parts
// Rows are dealt out as lib/rows says; the last one may be short, so that any size can be folded.
import package::lib::part::{part, wide, total};
import package::lib::rows::{group_size, lanes, place_of, sum_lanes};

struct Params { size: u32, rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<part>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(group_size)
fn row_sum(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let end = min(p.size, (at.row + 1u) * p.columns);
  var sum = wide();
  for (var i = at.row * p.columns + at.lane; i < end; i += lanes) { sum += wide(x[i]); }
  let all = sum_lanes(at.lane, total(sum));
  if (at.lane == 0u && at.row < p.rows) { y[at.row] = all; }
}

// dx[r, c] = dy[r]
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<part>;

@compute @workgroup_size(group_size)
fn spread(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let end = min(p.size, (at.row + 1u) * p.columns);
  let slope = part(wide(dy[min(at.row, p.rows - 1u)]));
  for (var i = at.row * p.columns + at.lane; i < end; i += lanes) { dx[i] = slope; }
}
