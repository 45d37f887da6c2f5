// Rotary position embedding, the half-rotation form that Hugging Face weights expect.            x, y (B, T, H, D)
// Pair (i, i + D/2) of a head turns by (t + offset) * theta^(-2i/D). One invocation a pair.
// The gradient is the same turn the other way: `direction` is 1 or -1.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { pairs: u32, tokens: u32, heads: u32, half_size: u32, offset: u32, theta: f32, direction: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn rotate(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) lane: u32) {
  let pair = flat_workgroup(group, groups) * 64u + lane;
  if (pair >= p.pairs) { return; }
  let i = pair % p.half_size;
  let head = pair / p.half_size; // counts (B, T, H)
  let position = (head / p.heads) % p.tokens + p.offset;
  let frequency = exp2(-log2(p.theta) * f32(i) / f32(p.half_size));
  let angle = f32(position) * frequency * p.direction;
  let first = head * p.half_size * 2u + i;
  let second = first + p.half_size;
  let a = f32(x[first]);
  let b = f32(x[second]);
  y[first] = elem(a * cos(angle) - b * sin(angle));
  y[second] = elem(b * cos(angle) + a * sin(angle));
}
