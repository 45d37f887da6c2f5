// Rotary position embedding, the half-rotation form that Hugging Face weights expect.            x, y (B, T, H, D)
// Pair (i, i + R/2) of a head turns by position · frequencies[i], for the first R = 2 · half_size numbers of it; the rest
// is copied. The position of token t of row b is t + offset, and starts[b] more in rotate_from. head_size and half_size
// count parts; an invocation owns a part of pairs, or of copied numbers, in `heads_each` heads of a token, which share
// their angles. The gradient is the same turn the other way: `direction` is 1 or -1. `factor` scales the rotated part.
import package::lib::part::{part, wide};
import package::lib::grid::flat_workgroup;
import package::lib::turn::turn_of;

struct Params {
  tokens_in_all: u32, tokens: u32, heads: u32, heads_each: u32, head_size: u32, half_size: u32, offset: u32,
  factor: f32, direction: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<part>;
@group(0) @binding(2) var<storage, read> frequencies: array<wide>;
@group(0) @binding(3) var<storage, read_write> y: array<part>;
@group(0) @binding(4) var<storage, read> starts: array<u32>;

// What an invocation owns: `i` counts a head's pairs, then its copied numbers; `token` counts (B, T).
struct Share { token: u32, head: u32, i: u32 }

fn share_of(group: vec3u, groups: vec3u, lane: u32) -> Share {
  let id = flat_workgroup(group, groups) * 64u + lane;
  let each = p.head_size - p.half_size;
  let runs = (p.heads + p.heads_each - 1u) / p.heads_each; // of heads, in a token
  let run = id / each;
  return Share(run / runs, run % runs * p.heads_each, id % each);
}

fn turn(s: Share, position: u32) {
  let end = min(s.head + p.heads_each, p.heads);
  let token = s.token * p.heads;
  if (s.i >= p.half_size) {
    for (var h = s.head; h < end; h++) {
      let at = (token + h) * p.head_size + s.i + p.half_size;
      y[at] = x[at];
    }
    return;
  }
  let turned = turn_of(f32(position) * frequencies[s.i]);
  let cosine = turned.cosine * p.factor;
  let sine = turned.sine * p.factor * p.direction;
  for (var h = s.head; h < end; h++) {
    let at = (token + h) * p.head_size + s.i;
    let a = wide(x[at]);
    let b = wide(x[at + p.half_size]);
    y[at] = part(a * cosine - b * sine);
    y[at + p.half_size] = part(b * cosine + a * sine);
  }
}

@compute @workgroup_size(64)
fn rotate(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let s = share_of(group, groups, lane);
  if (s.token < p.tokens_in_all) { turn(s, s.token % p.tokens + p.offset); }
}

@compute @workgroup_size(64)
fn rotate_from(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
               @builtin(local_invocation_index) lane: u32) {
  let s = share_of(group, groups, lane);
  if (s.token < p.tokens_in_all) { turn(s, s.token % p.tokens + p.offset + starts[s.token / p.tokens]); }
}
