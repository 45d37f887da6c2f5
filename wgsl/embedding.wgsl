// y[i] = table[ids[i] - first].                            table (rows, columns)   ids (count)   y (count, columns)
// A large table comes in windows of rows, one dispatch each: an id outside a window is left to the others.
// An id past the table gives NaN: a fault that shows instead of one that hides.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { rows: u32, columns: u32, count: u32, first: u32, total: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<elem>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.count * p.columns) { return; }
  let id = ids[i / p.columns];
  let row = id - p.first; // wraps round below the window, past its end
  let nan = bitcast<f32>(0x7fc00000u | min(p.count, 0u)); // hidden from constant folding, which refuses NaN
  if (row < p.rows) { y[i] = table[row * p.columns + i % p.columns]; }
  if (id >= p.total) { y[i] = elem(nan); }
}

// dtable[r] = sum of dy[i] over all i with ids[i] = r, in the order of i: the same bits every time, without atomics.
// One workgroup a row and 64 columns: it looks through the ids 64 at a time and adds the matching rows of dy.
@group(0) @binding(1) var<storage, read> dy: array<elem>;
@group(0) @binding(3) var<storage, read_write> dtable: array<elem>;
var<workgroup> matches: array<u32, 64>;
var<workgroup> found: u32;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let column = group.y * 64u + lane;
  var sum = 0.0;
  for (var base = 0u; base < p.count; base += 64u) {
    matches[lane] = select(0u, 1u, base + lane < p.count && ids[min(base + lane, p.count - 1u)] == row);
    workgroupBarrier();
    if (lane == 0u) {
      found = 0u;
      for (var i = 0u; i < 64u; i++) {
        if (matches[i] == 1u) { matches[found] = base + i; found++; }
      }
    }
    let some = workgroupUniformLoad(&found);
    if (column < p.columns) {
      for (var i = 0u; i < some; i++) { sum += f32(dy[matches[i] * p.columns + column]); }
    }
    workgroupBarrier();
  }
  if (column < p.columns) { dtable[row * p.columns + column] = elem(sum); }
}
