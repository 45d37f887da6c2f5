import { createPublicKey, verify } from 'node:crypto'
import { expect, test } from 'vitest'
import { isSignedBy, newKeyPair, readPrivateKey, readPublicKey, schemes, sign } from '../../src/bundle/keys.ts'
import { signManifest } from '../../src/bundle/signature.ts'
import { verifyBundle } from '../../src/bundle/verify.ts'
import { manifestOf, text, tinyBundle } from './tiny-bundle.ts'

test.each(schemes)('%s: a second implementation verifies what is signed', async (scheme) => {
  const { privatePem, publicPem } = await newKeyPair(scheme)
  const manifest = manifestOf(await tinyBundle())
  const envelope = JSON.parse(new TextDecoder().decode(await signManifest(manifest, await readPrivateKey(privatePem))))
  const { payload, payloadType, signatures } = envelope.dsseEnvelope
  const statement = Buffer.from(payload, 'base64')
  const signed = Buffer.concat([
    Buffer.from(`DSSEv1 ${payloadType.length} ${payloadType} ${statement.length} `),
    statement,
  ])
  const check = (bytes: Uint8Array) =>
    verify(
      scheme === 'ed25519' ? null : 'sha256',
      bytes,
      createPublicKey(publicPem),
      Buffer.from(signatures[0].sig, 'base64'),
    )
  expect(check(signed)).toBe(true)
  signed[signed.length - 1] ^= 1
  expect(check(signed)).toBe(false)
  // Every file and the manifest itself are under the signature.
  const names = JSON.parse(statement.toString()).predicate.resources.map(({ name }: { name: string }) => name)
  expect(names).toEqual([...Object.keys(manifest.files), 'manifest.json'].sort())
})

test('signatures of many lengths are read back, and no other bytes are', async () => {
  const pair = await newKeyPair()
  const [privateKey, publicKey] = [await readPrivateKey(pair.privatePem), await readPublicKey(pair.publicPem)]
  expect(publicKey.hint).toBe(privateKey.hint)
  const lengths = new Set<number>()
  for (let i = 0; i < 300; i++) {
    const bytes = text(`message ${i}`)
    const signature = await sign(privateKey, bytes)
    lengths.add(signature.length)
    expect(await isSignedBy(publicKey, signature, bytes)).toBe(true)
    if (i > 20) continue
    expect(await isSignedBy(publicKey, signature, text('other'))).toBe(false)
    for (const broken of [
      signature.slice(1),
      signature.slice(0, -1),
      Uint8Array.of(...signature, 0),
      new Uint8Array(0),
    ])
      expect(await isSignedBy(publicKey, broken, bytes)).toBe(false)
  }
  expect(lengths.size).toBeGreaterThan(1)
})

test('both schemes verify a bundle, and one does not pass for the other', async () => {
  const keys = await Promise.all(schemes.map((scheme) => newKeyPair(scheme)))
  for (const [i, { privatePem }] of keys.entries()) {
    const files = await tinyBundle()
    await files.write('manifest.sig.json', await signManifest(manifestOf(files), await readPrivateKey(privatePem)))
    for (const [j, { publicPem }] of keys.entries()) {
      const report = await verifyBundle(files, { key: await readPublicKey(publicPem) })
      expect(report).toMatchObject({ ok: i === j, signature: i === j ? 'valid' : 'invalid' })
    }
  }
})

test('what is no key is refused', async () => {
  const { privatePem, publicPem } = await newKeyPair()
  await expect(readPublicKey(privatePem)).rejects.toThrow('no PEM text of a PUBLIC KEY')
  await expect(readPrivateKey(publicPem)).rejects.toThrow('no PEM text of a PRIVATE KEY')
  await expect(readPublicKey(publicPem.replace(/\n.{20}/, '\nAAAAAAAAAAAAAAAAAAAA'))).rejects.toThrow('must be SPKI')
  await expect(readPrivateKey('')).rejects.toThrow(SyntaxError)
})
