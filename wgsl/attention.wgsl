// Causal attention with grouped heads: y_i = sum_j softmax_j(q_i · k_j * scale) v_j,  j <= i + keys - tokens.
//   q, y (B, tokens, heads, D)    k, v (B, keys, groups, D)    lse (B, heads, tokens)    heads is a multiple of groups
// An invocation owns one query (forward, dq) or one key (dk, dv) and walks the other side with a running softmax, so
// nothing of size tokens × keys is stored. The lanes of a workgroup share batch and head and read the same rows.
// forward saves lse = log sum exp; backward_q saves delta = dy · y, which backward_kv reads: it must run second.
// Where rows are packed, each query has a first key that it sees, (B, tokens), which forward_packed saves behind its lse,
// so that the gradients, which bind all eight buffers that a stage is sure to have, find it there.
import package::lib::elem::elem;

struct Params { tokens: u32, keys: u32, heads: u32, groups: u32, scale: f32, causal: u32 }
override head_size: u32 = 32;
override is_packed: u32 = 0; // 1: lse holds pairs of log sum exp and first key
const stride = 1u + is_packed;
const quads = head_size / 4u;
alias Row = array<vec4f, quads>;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<elem>>;
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;
@group(0) @binding(6) var<storage, read> starts: array<u32>;

fn query_row(batch: u32, token: u32, head: u32) -> u32 { return ((batch * p.tokens + token) * p.heads + head) * quads; }
fn key_row(batch: u32, key: u32, head: u32) -> u32 { return ((batch * p.keys + key) * p.groups + head) * quads; }
// One past the last key that query `token` sees.
fn visible(token: u32) -> u32 { return select(p.keys, token + 1u + p.keys - p.tokens, p.causal != 0u); }

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let token = group.x * 64u + lane;
  if (token < p.tokens) { look(group, token, 0u); }
}

@compute @workgroup_size(64)
fn forward_packed(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let token = group.x * 64u + lane;
  if (token >= p.tokens) { return; }
  let first = starts[group.z * p.tokens + token];
  look(group, token, first);
  lse[((group.z * p.heads + group.y) * p.tokens + token) * stride + 1u] = f32(first);
}

fn look(group: vec3u, token: u32, first: u32) {
  let head = group.y;
  let mine = query_row(group.z, token, head);
  var query: Row;
  var sum: Row;
  for (var d = 0u; d < quads; d++) { query[d] = vec4f(q[mine + d]) * p.scale; }
  var largest = -3.4e38;
  var total = 0.0;
  for (var j = first; j < visible(token); j++) {
    let other = key_row(group.z, j, head / (p.heads / p.groups));
    var score = 0.0;
    for (var d = 0u; d < quads; d++) { score += dot(query[d], vec4f(k[other + d])); }
    let next = max(largest, score);
    let keep = exp(largest - next);
    let weight = exp(score - next);
    for (var d = 0u; d < quads; d++) { sum[d] = sum[d] * keep + weight * vec4f(v[other + d]); }
    total = total * keep + weight;
    largest = next;
  }
  for (var d = 0u; d < quads; d++) { y[mine + d] = vec4<elem>(sum[d] / total); }
  lse[((group.z * p.heads + head) * p.tokens + token) * stride] = largest + log(total);
}

// With P_ij = exp(s_ij - lse_i) and delta_i = dy_i · y_i:   dS_ij = P_ij (dy_i · v_j - delta_i)
//   dq_i = scale * sum_j dS_ij k_j      dk_j = scale * sum_i dS_ij q_i      dv_j = sum_i P_ij dy_i
@group(0) @binding(4) var<storage, read> dy: array<vec4<elem>>;
@group(0) @binding(5) var<storage, read> logs: array<f32>; // what forward saved as lse
@group(0) @binding(6) var<storage, read> out: array<vec4<elem>>; // what forward saved as y
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<elem>>;
@group(0) @binding(8) var<storage, read_write> delta: array<f32>;

// The first key that the query sees whose lse lies at `at`.
fn first_key(at: u32) -> u32 {
  if (is_packed == 0u) { return 0u; }
  return u32(logs[at * stride + 1u]);
}

@compute @workgroup_size(64)
fn backward_q(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let token = group.x * 64u + lane;
  let head = group.y;
  if (token >= p.tokens) { return; }
  let mine = query_row(group.z, token, head);
  var query: Row;
  var slope: Row;
  var sum: Row;
  var own = 0.0;
  for (var d = 0u; d < quads; d++) {
    query[d] = vec4f(q[mine + d]) * p.scale;
    slope[d] = vec4f(dy[mine + d]);
    own += dot(slope[d], vec4f(out[mine + d]));
  }
  let at = (group.z * p.heads + head) * p.tokens + token;
  for (var j = first_key(at); j < visible(token); j++) {
    let other = key_row(group.z, j, head / (p.heads / p.groups));
    var score = 0.0;
    var along = 0.0;
    for (var d = 0u; d < quads; d++) {
      score += dot(query[d], vec4f(k[other + d]));
      along += dot(slope[d], vec4f(v[other + d]));
    }
    let ds = exp(score - logs[at * stride]) * (along - own) * p.scale;
    for (var d = 0u; d < quads; d++) { sum[d] += ds * vec4f(k[other + d]); }
  }
  for (var d = 0u; d < quads; d++) { dq[mine + d] = vec4<elem>(sum[d]); }
  delta[at] = own;
}

@group(0) @binding(6) var<storage, read> deltas: array<f32>; // what backward_q saved as delta
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<elem>>;
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<elem>>;

@compute @workgroup_size(64)
fn backward_kv(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let key = group.x * 64u + lane;
  if (key >= p.keys) { return; }
  let mine = key_row(group.z, key, group.y);
  var key_value: Row;
  var value: Row;
  var sum_k: Row;
  var sum_v: Row;
  for (var d = 0u; d < quads; d++) {
    key_value[d] = vec4f(k[mine + d]) * p.scale;
    value[d] = vec4f(v[mine + d]);
  }
  let share = p.heads / p.groups;
  for (var head = group.y * share; head < (group.y + 1u) * share; head++) {
    for (var token = 0u; token < p.tokens; token++) {
      let other = query_row(group.z, token, head);
      let at = (group.z * p.heads + head) * p.tokens + token;
      let seen = key < visible(token) && key >= first_key(at);
      var score = 0.0;
      var along = 0.0;
      for (var d = 0u; d < quads; d++) {
        score += dot(key_value[d], vec4f(q[other + d]));
        along += dot(value[d], vec4f(dy[other + d]));
      }
      let weight = select(0.0, exp(score - logs[at * stride]), seen);
      let ds = weight * (along - deltas[at]) * p.scale;
      for (var d = 0u; d < quads; d++) {
        sum_k[d] += ds * vec4f(q[other + d]);
        sum_v[d] += weight * vec4f(dy[other + d]);
      }
    }
  }
  for (var d = 0u; d < quads; d++) {
    dk[mine + d] = vec4<elem>(sum_k[d]);
    dv[mine + d] = vec4<elem>(sum_v[d]);
  }
}
