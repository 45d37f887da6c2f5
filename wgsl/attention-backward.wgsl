// Gradients of attention.wgsl. With P_ij = exp(s_ij - lse_i) and delta_i = dy_i · y_i:
//   dS_ij = P_ij (dy_i · v_j - delta_i)   dq_i = scale * sum_j dS_ij k_j   dk_j = scale * sum_i dS_ij q_i
//   dv_j = sum_i P_ij dy_i                 stats (B, groups, rows) = (lse, delta)
// delta makes stats, one invocation a row. backward_q owns 8 rows and walks keys, backward_k and backward_v own 8 keys and
// walk the rows of their group; all make P again in tiles of 8 × 8, and no sum has two writers, so there are no atomics. Where D
// is larger than 4 * own, the `parts` of D have invocations of their own, which make the same tiles again.
import package::lib::elem::elem;
import package::lib::attention::{p, q, k, v, ranges, lanes, own, sums, sum_at, Tile, Bases, unseen, rows_from, keys_from,
                                  ranges_from, union_of, scores};

@group(0) @binding(5) var<storage, read> dy: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read> y: array<vec4<elem>>;
@group(0) @binding(7) var<storage, read> lse: array<f32>;
@group(0) @binding(8) var<storage, read_write> stats: array<vec2f>;

@compute @workgroup_size(64)
fn delta(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let r = group.x * 64u + lane;
  if (r >= p.rows) { return; }
  let base = rows_from(group, r)[0];
  var sum = 0.0;
  for (var d = 0u; d < p.quads; d++) { sum += dot(vec4f(dy[base + d]), vec4f(y[base + d])); }
  let at = (group.z * p.groups + group.y) * p.rows + r;
  stats[at] = vec2f(lse[at], sum);
}

@group(0) @binding(6) var<storage, read> saved: array<vec2f>; // what delta made as stats
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<elem>>;

// Scores become weights P. A row past the end repeats the last one, and must not count twice.
fn weights(group: vec3u, first: u32, tile: ptr<function, Tile>) -> array<f32, 8> {
  var deltas: array<f32, 8>;
  for (var r = 0u; r < 8u; r++) {
    let known = saved[(group.z * p.groups + group.y) * p.rows + min(first + r, p.rows - 1u)];
    let log_sum = select(unseen, known.x, first + r < p.rows);
    deltas[r] = known.y;
    (*tile)[r][0] = exp((*tile)[r][0] - log_sum);
    (*tile)[r][1] = exp((*tile)[r][1] - log_sum);
  }
  return deltas;
}

// Scores become weights P; the result is scale * dS.
fn slopes(group: vec3u, row: Bases, key: Bases, first: u32, weight: ptr<function, Tile>) -> Tile {
  var along: Tile;
  for (var d = 0u; d < p.quads; d++) {
    var right: array<vec4f, 8>;
    for (var c = 0u; c < 8u; c++) { right[c] = vec4f(v[key[c] + d]); }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(dy[row[r] + d]);
      along[r][0] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
      along[r][1] += vec4f(dot(left, right[4]), dot(left, right[5]), dot(left, right[6]), dot(left, right[7]));
    }
  }
  let deltas = weights(group, first, weight);
  for (var r = 0u; r < 8u; r++) {
    along[r][0] = (*weight)[r][0] * (along[r][0] - deltas[r]) * p.scale;
    along[r][1] = (*weight)[r][1] * (along[r][1] - deltas[r]) * p.scale;
  }
  return along;
}

@compute @workgroup_size(lanes)
fn backward_q(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let parts = (p.quads + own - 1u) / own;
  let mine = (group.x / parts * lanes + lane) * 8u;
  if (mine >= p.rows) { return; }
  let part = group.x % parts * own;
  let width = min(own, p.quads - part);
  let row = rows_from(group, mine);
  let range = ranges_from(group.z, mine);
  let all = union_of(range);
  for (var i = 0u; i < width * 8u; i++) { sums[i * lanes + lane] = vec4f(); }
  for (var j = all.x; j < all.y; j += 8u) {
    let key = keys_from(group, j);
    var weight = scores(row, key, j, range);
    let ds = slopes(group, row, key, mine, &weight);
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

@group(0) @binding(7) var<storage, read_write> dx: array<vec4<elem>>; // dk or dv

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
    let range = ranges_from(group.z, i);
    let all = union_of(range);
    if (all.x >= mine + 8u || mine >= all.y) { continue; }
    let row = rows_from(group, i);
    var weight = scores(row, key, mine, range);
    let ds = slopes(group, row, key, i, &weight);
    for (var d = 0u; d < width; d++) {
      let at = part + d;
      let a = mat4x4f(vec4f(q[row[0] + at]), vec4f(q[row[1] + at]), vec4f(q[row[2] + at]), vec4f(q[row[3] + at]));
      let b = mat4x4f(vec4f(q[row[4] + at]), vec4f(q[row[5] + at]), vec4f(q[row[6] + at]), vec4f(q[row[7] + at]));
      for (var c = 0u; c < 8u; c++) { sums[sum_at(lane, d, c)] += a * column(ds, c, 0u) + b * column(ds, c, 4u); }
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
    let range = ranges_from(group.z, i);
    let all = union_of(range);
    if (all.x >= mine + 8u || mine >= all.y) { continue; }
    let row = rows_from(group, i);
    var weight = scores(row, key, mine, range);
    weights(group, i, &weight);
    for (var d = 0u; d < width; d++) {
      let at = part + d;
      let a = mat4x4f(vec4f(dy[row[0] + at]), vec4f(dy[row[1] + at]), vec4f(dy[row[2] + at]), vec4f(dy[row[3] + at]));
      let b = mat4x4f(vec4f(dy[row[4] + at]), vec4f(dy[row[5] + at]), vec4f(dy[row[6] + at]), vec4f(dy[row[7] + at]));
      for (var c = 0u; c < 8u; c++) { sums[sum_at(lane, d, c)] += a * column(weight, c, 0u) + b * column(weight, c, 4u); }
    }
  }
  store_keys(lane, mine, key, part, width);
}

fn column(tile: Tile, c: u32, r: u32) -> vec4f {
  return vec4f(tile[r][c / 4u][c % 4u], tile[r + 1u][c / 4u][c % 4u], tile[r + 2u][c / 4u][c % 4u], tile[r + 3u][c / 4u][c % 4u]);
}
fn store_keys(lane: u32, mine: u32, key: Bases, part: u32, width: u32) {
  for (var d = 0u; d < width; d++) {
    for (var c = 0u; c < 8u; c++) {
      if (mine + c < p.keys) { dx[key[c] + part + d] = vec4<elem>(sums[sum_at(lane, d, c)]); }
    }
  }
}
