// Attention with grouped heads: y_i = sum_j softmax_j(q_i · k_j * scale) v_j over the keys j that query i sees.
//   q, y (B, tokens, heads, D)   k, v (B, keys, groups, D)   lse (B, groups, rows) = log sum exp   (lib/attention)
// An invocation owns 8 rows and walks their keys in tiles of 8 with a running softmax, as matmul.wgsl walks its sum: a
// loaded vector serves 8 rows, and nothing of size tokens × keys is stored. Where D is larger than 4 * own, the parts of
// D have invocations of their own, which make the same scores again. A query that sees no key gives zeros, and an lse so
// large that its weights are zero in the backward pass too.
import package::lib::elem::elem;
import package::lib::attention::{p, q, k, v, ranges, lanes, own, sums, sum_at, none_yet, unseen, rows_from,
                                  keys_from, ranges_from, union_of, scores};

@group(0) @binding(5) var<storage, read_write> y: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;

@compute @workgroup_size(lanes)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let parts = (p.quads + own - 1u) / own;
  let mine = (group.x / parts * lanes + lane) * 8u;
  if (mine >= p.rows) { return; }
  let part = group.x % parts * own;
  let width = min(own, p.quads - part);
  let row = rows_from(group, mine);
  let range = ranges_from(group.z, mine);
  let all = union_of(range);
  var largest: array<f32, 8>;
  var total: array<f32, 8>;
  for (var r = 0u; r < 8u; r++) { largest[r] = none_yet; }
  for (var i = 0u; i < width * 8u; i++) { sums[i * lanes + lane] = vec4f(); }
  for (var j = all.x; j < all.y; j += 8u) {
    let key = keys_from(group, j);
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
    let seen = total[r] > 0.0;
    if (part == 0u && mine + r < p.rows) {
      lse[(group.z * p.groups + group.y) * p.rows + mine + r] = select(unseen, largest[r] + log(total[r]), seen);
    }
    total[r] = select(0.0, 1.0 / total[r], seen);
  }
  for (var d = 0u; d < width; d++) {
    for (var r = 0u; r < 8u; r++) {
      if (mine + r < p.rows) { y[row[r] + part + d] = vec4<elem>(sums[sum_at(lane, d, r)] * total[r]); }
    }
  }
}
