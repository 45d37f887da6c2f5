// What an adapter can do at most, for the bench: every kernel's time is divided by these.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { size: u32, rounds: u32 } // size in vec4
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;

// y = x
@compute @workgroup_size(64)
fn copy(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { y[i] = x[i]; }
}

// Eight multiply-adds on vec4 a round, in chains that do not wait for each other; named, since not every compiler keeps an
// array in registers.
@group(0) @binding(2) var<storage, read_write> sums: array<elem>; // one an invocation
@compute @workgroup_size(64)
fn multiply_add(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  let factor = vec4<elem>(elem(0.5));
  let term = vec4<elem>(elem(f32(lane)));
  var c0 = term;
  var c1 = term;
  var c2 = term;
  var c3 = term;
  var c4 = term;
  var c5 = term;
  var c6 = term;
  var c7 = term;
  for (var round = 0u; round < p.rounds; round++) {
    c0 = c0 * factor + term;
    c1 = c1 * factor + term;
    c2 = c2 * factor + term;
    c3 = c3 * factor + term;
    c4 = c4 * factor + term;
    c5 = c5 * factor + term;
    c6 = c6 * factor + term;
    c7 = c7 * factor + term;
  }
  let total = c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7;
  sums[i] = total.x + total.y + total.z + total.w;
}
