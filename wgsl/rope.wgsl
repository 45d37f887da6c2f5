// Rotary position embedding, the half-rotation form that Hugging Face weights expect.            x, y (B, T, H, D)
// Pair (i, i + R/2) of a head turns by position · frequencies[i], for the first R = 2 · half_size numbers of it; the rest
// is copied. The position of token t of row b is t + offset, and starts[b] more in rotate_from. One invocation a pair or
// copied number. The gradient is the same turn the other way: `direction` is 1 or -1. `factor` scales the rotated part.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { heads_in_all: u32, tokens: u32, heads: u32, head_size: u32, half_size: u32, offset: u32, factor: f32, direction: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> frequencies: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;
@group(0) @binding(4) var<storage, read> starts: array<u32>;

// `head` counts (B, T, H); `i` counts its pairs, then its copied numbers.
fn turn(head: u32, i: u32, position: u32) {
  let first = head * p.head_size + i;
  if (i >= p.half_size) {
    y[first + p.half_size] = x[first + p.half_size];
    return;
  }
  let angle = f32(position) * frequencies[i];
  let cosine = cos(angle) * p.factor;
  let sine = sin(angle) * p.factor * p.direction;
  let a = f32(x[first]);
  let b = f32(x[first + p.half_size]);
  y[first] = elem(a * cosine - b * sine);
  y[first + p.half_size] = elem(b * cosine + a * sine);
}

@compute @workgroup_size(64)
fn rotate(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let id = flat_workgroup(group, groups) * 64u + lane;
  let each = p.head_size - p.half_size;
  let head = id / each;
  if (head < p.heads_in_all) { turn(head, id % each, head / p.heads % p.tokens + p.offset); }
}

@compute @workgroup_size(64)
fn rotate_from(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
               @builtin(local_invocation_index) lane: u32) {
  let id = flat_workgroup(group, groups) * 64u + lane;
  let each = p.head_size - p.half_size;
  let head = id / each;
  if (head >= p.heads_in_all) { return; }
  let token = head / p.heads;
  turn(head, id % each, token % p.tokens + p.offset + starts[token / p.tokens]);
}
