// Gradients of attention.wgsl. With P_ij = exp(s_ij - lse_i) and delta_i = dy_i · y_i:
//   dS_ij = P_ij (dy_i · v_j - delta_i)   dq_i = scale * sum_j dS_ij k_j   dk_j = scale * sum_i dS_ij q_i
//   dv_j = sum_i P_ij dy_i                 known (B, groups, rows) = (lse, delta, the keys that row i sees)
// known_rows makes known, one invocation a row, so that the others need not find it out for every tile. backward_q owns
// 8 rows and walks keys; backward_k and backward_v own 8 keys and walk the rows of their group. All make P again in tiles
// of 8 × 8, and no sum has two writers, so there are no atomics. Where D is larger than 4 * own, the parts of D have
// invocations of their own, which make the same tiles again.
import package::lib::elem::elem;
import package::lib::attention::{p, q, k, ranges, lanes, own, sums, sum_at, Bases, rows_from, keys_from, ranges_from,
                                  union_of, scores};
import package::lib::slopes::{dy, saved, known_from, ranges_of, weights, slopes};

@group(0) @binding(6) var<storage, read> y: array<vec4<elem>>;
@group(0) @binding(7) var<storage, read> lse: array<f32>;
@group(0) @binding(8) var<storage, read_write> known: array<vec4u>; // the first two are f32 in bits

@compute @workgroup_size(64)
fn known_rows(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let r = group.x * 64u + lane;
  if (r >= p.rows) { return; }
  let base = rows_from(group, r)[0];
  var sum = 0.0;
  for (var d = 0u; d < p.quads; d++) { sum += dot(vec4f(dy[base + d]), vec4f(y[base + d])); }
  let at = (group.z * p.groups + group.y) * p.rows + r;
  known[at] = vec4u(bitcast<u32>(lse[at]), bitcast<u32>(sum), ranges_from(group.z, r)[0]);
}

@group(0) @binding(6) var<storage, read_write> dq: array<vec4<elem>>;

@compute @workgroup_size(lanes)
fn backward_q(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let parts = (p.quads + own - 1u) / own;
  let mine = (group.x / parts * lanes + lane) * 8u;
  if (mine >= p.rows) { return; }
  let part = group.x % parts * own;
  let width = min(own, p.quads - part);
  let row = rows_from(group, mine);
  let rows = known_from(group, mine);
  let range = ranges_of(rows);
  let all = union_of(range);
  for (var i = 0u; i < width * 8u; i++) { sums[i * lanes + lane] = vec4f(); }
  for (var j = all.x; j < all.y; j += 8u) {
    let key = keys_from(group, j);
    var weight = scores(row, key, j, range);
    let ds = slopes(rows, row, key, &weight);
    for (var d = 0u; d < width; d++) {
      let at = part + d;
      let a = mat4x4f(vec4f(k[key[0] + at]), vec4f(k[key[1] + at]), vec4f(k[key[2] + at]), vec4f(k[key[3] + at]));
      let b = mat4x4f(vec4f(k[key[4] + at]), vec4f(k[key[5] + at]), vec4f(k[key[6] + at]), vec4f(k[key[7] + at]));
      for (var r = 0u; r < 8u; r++) { sums[sum_at(lane, d, r)] += a * ds[r][0] + b * ds[r][1]; }
    }
  }
  for (var d = 0u; d < width; d++) {
    for (var r = 0u; r < 8u; r++) {
      if (mine + r < p.rows) { dq[row[r] + part + d] = vec4<elem>(sums[sum_at(lane, d, r)]); }
    }
  }
}

// The rows that see any key of the workgroup, so that its lanes read the same ones.
fn rows_seeing(first: u32) -> vec2u {
  if (p.causal == 0u) { return vec2u(0u, p.rows); }
  let before = p.keys - p.tokens; // token t stands at key t + before
  let last = min(first + lanes * 8u, p.keys) - 1u + p.window;
  return vec2u(first - min(first, before), min(p.tokens, last - min(last, before))) * p.share;
}

@group(0) @binding(6) var<storage, read_write> dx: array<vec4<elem>>; // dk or dv

@compute @workgroup_size(lanes)
fn backward_k(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let parts = (p.quads + own - 1u) / own;
  let first = group.x / parts * lanes * 8u;
  let mine = first + lane * 8u;
  if (mine >= p.keys) { return; }
  let part = group.x % parts * own;
  let width = min(own, p.quads - part);
  let key = keys_from(group, mine);
  let seeing = rows_seeing(first);
  for (var i = 0u; i < width * 8u; i++) { sums[i * lanes + lane] = vec4f(); }
  for (var i = seeing.x; i < seeing.y; i += 8u) {
    let rows = known_from(group, i);
    let range = ranges_of(rows);
    let all = union_of(range);
    if (all.x >= mine + 8u || mine >= all.y) { continue; }
    let row = rows_from(group, i);
    var weight = scores(row, key, mine, range);
    let ds = slopes(rows, row, key, &weight);
    let upper = columns(ds[0], ds[1], ds[2], ds[3]);
    let lower = columns(ds[4], ds[5], ds[6], ds[7]);
    for (var d = 0u; d < width; d++) {
      let at = part + d;
      let a = mat4x4f(vec4f(q[row[0] + at]), vec4f(q[row[1] + at]), vec4f(q[row[2] + at]), vec4f(q[row[3] + at]));
      let b = mat4x4f(vec4f(q[row[4] + at]), vec4f(q[row[5] + at]), vec4f(q[row[6] + at]), vec4f(q[row[7] + at]));
      for (var c = 0u; c < 8u; c++) { sums[sum_at(lane, d, c)] += a * upper[c] + b * lower[c]; }
    }
  }
  store_keys(lane, mine, key, part, width);
}

@compute @workgroup_size(lanes)
fn backward_v(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let parts = (p.quads + own - 1u) / own;
  let first = group.x / parts * lanes * 8u;
  let mine = first + lane * 8u;
  if (mine >= p.keys) { return; }
  let part = group.x % parts * own;
  let width = min(own, p.quads - part);
  let key = keys_from(group, mine);
  let seeing = rows_seeing(first);
  for (var i = 0u; i < width * 8u; i++) { sums[i * lanes + lane] = vec4f(); }
  for (var i = seeing.x; i < seeing.y; i += 8u) {
    let rows = known_from(group, i);
    let range = ranges_of(rows);
    let all = union_of(range);
    if (all.x >= mine + 8u || mine >= all.y) { continue; }
    let row = rows_from(group, i);
    var weight = scores(row, key, mine, range);
    weights(rows, &weight);
    let upper = columns(weight[0], weight[1], weight[2], weight[3]);
    let lower = columns(weight[4], weight[5], weight[6], weight[7]);
    for (var d = 0u; d < width; d++) {
      let at = part + d;
      let a = mat4x4f(vec4f(dy[row[0] + at]), vec4f(dy[row[1] + at]), vec4f(dy[row[2] + at]), vec4f(dy[row[3] + at]));
      let b = mat4x4f(vec4f(dy[row[4] + at]), vec4f(dy[row[5] + at]), vec4f(dy[row[6] + at]), vec4f(dy[row[7] + at]));
      for (var c = 0u; c < 8u; c++) { sums[sum_at(lane, d, c)] += a * upper[c] + b * lower[c]; }
    }
  }
  store_keys(lane, mine, key, part, width);
}

// Four rows of a tile, by columns. Written out, because an array is only kept in registers where indices are plain.
fn columns(a: array<vec4f, 2>, b: array<vec4f, 2>, c: array<vec4f, 2>, d: array<vec4f, 2>) -> array<vec4f, 8> {
  let left = transpose(mat4x4f(a[0], b[0], c[0], d[0]));
  let right = transpose(mat4x4f(a[1], b[1], c[1], d[1]));
  return array<vec4f, 8>(left[0], left[1], left[2], left[3], right[0], right[1], right[2], right[3]);
}
fn store_keys(lane: u32, mine: u32, key: Bases, part: u32, width: u32) {
  for (var d = 0u; d < width; d++) {
    for (var c = 0u; c < 8u; c++) {
      if (mine + c < p.keys) { dx[key[c] + part + d] = vec4<elem>(sums[sum_at(lane, d, c)]); }
    }
  }
}
