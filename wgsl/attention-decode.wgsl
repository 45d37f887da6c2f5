// Attention of a few new queries to a cache in pages, and the cache's new rows.
//   q, y (B, tokens, heads, D)   k, v: the cache (pages, page_size, groups, D)   table (B, pages of a row)
//   position (B): keys before the new ones; key j of row b lies in page table[b, j / page_size], place j % page_size,
//   and query t sees keys up to position + t, the last `window` of them. A cache without pages has one page a row.
// partial: an invocation owns 8 rows (lib/attention) and one chunk of the keys, so that a long cache keeps many busy;
// combine: y is the mean of the chunks' results, weighted by exp(lse). append writes the new keys and values.
// What would lie past the table or the cache is not written.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::attention::{p, q, k, v, lanes, own, sums, sum_at, none_yet, Bases, rows_from, union_of, scores};

override page_size: u32 = 16;
override chunk: u32 = 64; // keys of an invocation, a multiple of eight

@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read> position: array<u32>;
@group(0) @binding(6) var<storage, read_write> part_y: array<vec4f>; // (B, groups, rows, chunks, D)
@group(0) @binding(7) var<storage, read_write> part_lse: array<f32>; // (B, groups, rows, chunks)

@compute @workgroup_size(lanes)
fn partial(@builtin(workgroup_id) place: vec3u, @builtin(local_invocation_index) lane: u32) {
  let parts = (p.quads + own - 1u) / own;
  let piece = place.x / parts * lanes + lane;
  let chunks = (p.keys + chunk - 1u) / chunk;
  if (piece >= chunks) { return; }
  let part = place.x % parts * own;
  let width = min(own, p.quads - part);
  let group = vec3u(0u, place.y % p.groups, place.z);
  let mine = place.y / p.groups * 8u;
  let row = rows_from(group, mine);
  var range: array<vec2u, 8>;
  for (var r = 0u; r < 8u; r++) {
    let end = min(position[group.z] + min(mine + r, p.rows - 1u) / p.share + 1u, p.keys);
    range[r] = vec2u(max(end - min(end, p.window), piece * chunk), min(end, (piece + 1u) * chunk));
  }
  let all = union_of(range);
  let pages = p.keys / page_size;
  var largest: array<f32, 8>;
  var total: array<f32, 8>;
  for (var r = 0u; r < 8u; r++) { largest[r] = none_yet; }
  for (var i = 0u; i < width * 8u; i++) { sums[i * lanes + lane] = vec4f(); }
  for (var j = all.x; j < all.y; j += 8u) {
    var key: Bases;
    for (var c = 0u; c < 8u; c++) {
      let at = min(j + c, all.y - 1u);
      let slot = table[group.z * pages + at / page_size] * page_size + at % page_size;
      key[c] = (slot * p.groups + group.y) * p.quads;
    }
    var weight = scores(row, key, j, range);
    var keep: array<f32, 8>;
    for (var r = 0u; r < 8u; r++) {
      let most = max(weight[r][0], weight[r][1]);
      let next = max(largest[r], max(max(most.x, most.y), max(most.z, most.w)));
      weight[r][0] = exp(weight[r][0] - next);
      weight[r][1] = exp(weight[r][1] - next);
      keep[r] = exp(largest[r] - next);
      total[r] = total[r] * keep[r] + dot(weight[r][0] + weight[r][1], vec4f(1.0));
      largest[r] = next;
    }
    for (var d = 0u; d < width; d++) {
      let at = part + d;
      let a = mat4x4f(vec4f(v[key[0] + at]), vec4f(v[key[1] + at]), vec4f(v[key[2] + at]), vec4f(v[key[3] + at]));
      let b = mat4x4f(vec4f(v[key[4] + at]), vec4f(v[key[5] + at]), vec4f(v[key[6] + at]), vec4f(v[key[7] + at]));
      for (var r = 0u; r < 8u; r++) {
        let i = sum_at(lane, d, r);
        sums[i] = sums[i] * keep[r] + a * weight[r][0] + b * weight[r][1];
      }
    }
  }
  for (var r = 0u; r < 8u; r++) {
    if (mine + r < p.rows) {
      let at = ((group.z * p.groups + group.y) * p.rows + mine + r) * chunks + piece;
      let seen = total[r] > 0.0;
      if (part == 0u) { part_lse[at] = select(none_yet, largest[r] + log(total[r]), seen); }
      let factor = select(0.0, 1.0 / total[r], seen);
      for (var d = 0u; d < width; d++) { part_y[at * p.quads + part + d] = sums[sum_at(lane, d, r)] * factor; }
    }
  }
}

@group(0) @binding(1) var<storage, read> parts_y: array<vec4f>;
@group(0) @binding(2) var<storage, read> parts_lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<elem>>;

@compute @workgroup_size(64)
fn combine(@builtin(workgroup_id) place: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = place.x * 64u + lane; // a vec4 of a row
  if (i >= p.rows * p.quads) { return; }
  let r = i / p.quads;
  let d = i % p.quads;
  let chunks = (p.keys + chunk - 1u) / chunk;
  let first = ((place.z * p.groups + place.y) * p.rows + r) * chunks;
  var largest = none_yet;
  for (var c = 0u; c < chunks; c++) { largest = max(largest, parts_lse[first + c]); }
  var total = 0.0;
  var sum = vec4f();
  for (var c = 0u; c < chunks; c++) {
    let weight = exp(parts_lse[first + c] - largest);
    total += weight;
    sum += weight * parts_y[(first + c) * p.quads + d];
  }
  y[rows_from(place, r)[0] + d] = vec4<elem>(sum / total);
}

@group(0) @binding(1) var<storage, read> fresh_k: array<vec4<elem>>; // (B, tokens, groups, D)
@group(0) @binding(2) var<storage, read> fresh_v: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read_write> cache_k: array<vec4<elem>>;
@group(0) @binding(7) var<storage, read_write> cache_v: array<vec4<elem>>;

@compute @workgroup_size(64)
fn append(@builtin(workgroup_id) place: vec3u, @builtin(num_workgroups) places: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(place, places) * 64u + lane;
  if (i >= arrayLength(&fresh_k)) { return; }
  let width = p.groups * p.quads;
  let row = i / width / p.tokens;
  let at = position[row] + i / width % p.tokens;
  if (at >= p.keys) { return; }
  let slot = table[row * (p.keys / page_size) + at / page_size] * page_size + at % page_size;
  if (slot * width >= arrayLength(&cache_k)) { return; }
  cache_k[slot * width + i % width] = fresh_k[i];
  cache_v[slot * width + i % width] = fresh_v[i];
}
