// Tokens that somebody forges who can read the key set: reads that from stdin, prints
// `{garbage, unknown_kid, public_key_as_secret}`.

const crypto = require('crypto');
const jwt = require('jsonwebtoken');
const { AUDIENCE, NAMESPACE } = process.env;

let text = '';
process.stdin.on('data', part => (text += part));
process.stdin.on('end', () => {
  const [jwk] = JSON.parse(text).keys;
  const claims = { sub: 'sam', aud: AUDIENCE, [`${NAMESPACE}/roles`]: ['super_admin'] };
  const sign = (key, header, algorithm) =>
    jwt.sign(claims, key, { algorithm, expiresIn: '5m', ...header });
  const mine = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const forged = {
    garbage: 'e30.e30.garbage',
    unknown_kid: sign(mine, { keyid: 'nobody-knows-this-key' }, 'RS256'),
  };
  if (jwk) {
    const key = crypto.createPublicKey({ key: jwk, format: 'jwk' });
    const pem = key.export({ type: 'pkcs1', format: 'pem' });
    forged.public_key_as_secret = sign(pem, { keyid: jwk.kid }, 'HS256');
  }
  process.stdout.write(JSON.stringify(forged));
});
