// y[i] = table[ids[i] - first].               table (rows, columns)   ids (count)   y (count, columns), columns in parts
// A large table comes in windows of rows, one dispatch each: an id outside a window is left to the others.
// An id past the table gives NaN: a fault that shows instead of one that hides.
import package::lib::part::{part, wide};
import package::lib::rows::{group_size, lanes, place_of};
import package::lib::grid::flat_workgroup;

struct Params { rows: u32, columns: u32, count: u32, first: u32, total: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<part>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<part>;

@compute @workgroup_size(group_size)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  if (at.row >= p.count) { return; }
  let id = ids[at.row];
  let row = id - p.first; // wraps round below the window, past its end
  let to_row = at.row * p.columns;
  if (row < p.rows) {
    for (var c = at.lane; c < p.columns; c += lanes) { y[to_row + c] = table[row * p.columns + c]; }
  }
  if (id < p.total) { return; }
  let nan = bitcast<f32>(0x7fc00000u | min(p.count, 0u)); // hidden from constant folding, which refuses NaN
  for (var c = at.lane; c < p.columns; c += lanes) { y[to_row + c] = part(wide(nan)); }
}

// The gradient needs, for every row of the table, the positions of its ids in ascending order:
//   first[r] is the first position, next[i] the one after i; `count` ends a chain.
// Each of `walkers` invocations owns the rows r with r % walkers = its number and links positions `begin` to `end` in
// front of what it has: ranges come in from the last to the first, and `fresh` is 1 for the last. No atomics: the same
// chains, so the same order of addition, every time.
struct ChainParams { rows: u32, count: u32, begin: u32, end: u32, fresh: u32 }
override walkers: u32 = 1024;
@group(0) @binding(0) var<uniform> q: ChainParams;
@group(0) @binding(1) var<storage, read_write> first: array<u32>;
@group(0) @binding(3) var<storage, read_write> next: array<u32>;

@compute @workgroup_size(group_size)
fn backward_chain(@builtin(global_invocation_id) id: vec3u) {
  let me = id.x;
  if (me >= walkers) { return; }
  if (q.fresh == 1u) {
    for (var r = me; r < q.rows; r += walkers) { first[r] = q.count; }
  }
  for (var i = q.end; i > q.begin; i--) {
    let row = ids[i - 1u];
    if (row % walkers == me && row < q.rows) {
      next[i - 1u] = first[row];
      first[row] = i - 1u;
    }
  }
}

// dtable[r] = sum of dy[i] over the chain of r. 64 invocations take 64 columns of a row. A software GPU that ends loops
// after 65,535 turns (lavapipe) bounds how often one id may occur.
@group(0) @binding(1) var<storage, read> firsts: array<u32>;
@group(0) @binding(2) var<storage, read> nexts: array<u32>;
@group(0) @binding(3) var<storage, read> dy: array<part>;
@group(0) @binding(4) var<storage, read_write> dtable: array<part>;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32) {
  let across = (p.columns + 63u) / 64u;
  let flat = flat_workgroup(group, groups);
  let row = flat / across;
  let c = flat % across * 64u + lane;
  if (row >= p.rows || c >= p.columns) { return; }
  var sum = wide();
  for (var i = firsts[row]; i < p.count; i = nexts[i]) { sum += wide(dy[i * p.columns + c]); }
  dtable[row * p.columns + c] = part(sum);
}
