// What the attention kernels share: operands, which query sees which key, and a tile of 8 × 8 scores.
//   q, dy (B, tokens, groups, share, D)   k, v (B, keys, groups, D)   ranges (B, tokens): keys x <= j < y, if ranged
// The `share` heads that read one key head stand side by side, so a group has rows = tokens * share; row r is head
// r % share of token r / share. Loops over D count to p.quads, a number of the uniform: with a constant, compilers
// unroll them, which takes a minute on a software GPU and gains nothing.
import package::lib::elem::elem;

struct Shape {
  tokens: u32, keys: u32, groups: u32, share: u32, rows: u32, quads: u32, // quads: D / 4
  scale: f32, causal: u32, window: u32, ranged: u32,
}
@group(0) @binding(0) var<uniform> p: Shape;
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;
@group(0) @binding(4) var<storage, read> ranges: array<vec2u>;

alias Bases = array<u32, 8>; // where eight rows or keys begin
alias Tile = array<array<vec4f, 2>, 8>; // eight rows × eight keys

// The sums of an invocation: 8 rows or keys × `own` vec4 of D, each invocation its own, so that there are no barriers.
// They lie here, and not in an array of the function, because compilers handle indexed private arrays badly.
override lanes: u32 = 8;
override own: u32 = 16; // of D / 4; less where D is less: browsers clear this memory
const sums_size = lanes * 8u * own; // 16 KiB
var<workgroup> sums: array<vec4f, sums_size>;
fn sum_at(lane: u32, d: u32, r: u32) -> u32 { return (d * 8u + r) * lanes + lane; }

const hidden = -3.4e38; // the score of a key that is not seen; the running maximum begins above it
const none_yet = -1e30;
const unseen = 1e30; // the log sum exp of a row without keys: every weight made with it is zero

// Eight rows or keys of a group (group.y) and batch entry (group.z) from `first` on; past the end, the last one.
fn rows_from(group: vec3u, first: u32) -> Bases {
  var base: Bases;
  let token = first / p.share;
  var head = first - token * p.share;
  var at = ((group.z * p.tokens + token) * p.groups + group.y) * p.share;
  for (var r = 0u; r < 8u; r++) {
    base[r] = (at + head) * p.quads;
    if (first + r + 1u < p.rows) {
      head += 1u;
      if (head == p.share) {
        head = 0u;
        at += p.groups * p.share;
      }
    }
  }
  return base;
}
fn keys_from(group: vec3u, first: u32) -> Bases {
  var base: Bases;
  for (var c = 0u; c < 8u; c++) {
    base[c] = ((group.z * p.keys + min(first + c, p.keys - 1u)) * p.groups + group.y) * p.quads;
  }
  return base;
}

// The keys x <= j < y that the rows from `first` on see. Causal and window count from the end: the last query stands at
// the last key.
fn ranges_from(batch: u32, first: u32) -> array<vec2u, 8> {
  var range: array<vec2u, 8>;
  var head = first % p.share;
  var token = first / p.share;
  for (var r = 0u; r < 8u; r++) {
    range[r] = vec2u(0u, p.keys);
    if (p.causal != 0u) {
      let end = token + 1u + p.keys - p.tokens;
      range[r] = vec2u(end - min(end, p.window), end);
    }
    if (p.ranged != 0u) {
      let allowed = ranges[batch * p.tokens + token];
      range[r] = vec2u(max(range[r].x, allowed.x), min(range[r].y, allowed.y));
    }
    head += 1u;
    if (head == p.share && token + 1u < p.tokens) {
      head = 0u;
      token += 1u;
    }
  }
  return range;
}

// The smallest range with all of them; empty, with x >= y, if they are.
fn union_of(range: array<vec2u, 8>) -> vec2u {
  var all = vec2u(p.keys, 0u);
  for (var r = 0u; r < 8u; r++) {
    if (range[r].x < range[r].y) { all = vec2u(min(all.x, range[r].x), max(all.y, range[r].y)); }
  }
  return all;
}

// scale * q · k, hidden where the key is not seen; `key` is the number of the first.
fn scores(row: Bases, base: Bases, key: u32, range: array<vec2u, 8>) -> Tile {
  var s: Tile;
  for (var d = 0u; d < p.quads; d++) {
    var right: array<vec4f, 8>;
    for (var c = 0u; c < 8u; c++) { right[c] = vec4f(k[base[c] + d]); }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(q[row[r] + d]);
      s[r][0] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
      s[r][1] += vec4f(dot(left, right[4]), dot(left, right[5]), dot(left, right[6]), dot(left, right[7]));
    }
  }
  for (var r = 0u; r < 8u; r++) {
    for (var half = 0u; half < 2u; half++) {
      let at = vec4u(key + half * 4u) + vec4u(0u, 1u, 2u, 3u);
      let seen = (at >= vec4u(range[r].x)) & (at < vec4u(range[r].y));
      s[r][half] = select(vec4f(hidden), s[r][half] * p.scale, seen);
    }
  }
  return s;
}
