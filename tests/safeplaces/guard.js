// The guards as the backends set them up: from the environment alone.

const findUser = require('./users');
const routes = require('./routes');

const era = process.argv[2];
const { AUTH0_API_AUDIENCE, AUTH0_BASE_URL, AUTH0_CLAIM_NAMESPACE, JWT_SECRET, NODE_ENV } =
  process.env;
const jwksUri = `${AUTH0_BASE_URL}/.well-known/jwks.json`;

// The first role decides, as in the backend's own policy; the translation service has none.
function authorize(decoded, req) {
  if (era === 'translation') {
    return;
  }
  const roles = decoded[`${AUTH0_CLAIM_NAMESPACE}/roles`];
  if (!roles) {
    throw new Error('no roles');
  }
  const method = req.method.toLowerCase();
  const route = routes[era].find(([verb, path]) => verb === method && path === req.route.path);
  if (!route || !route[2].includes(roles[0])) {
    throw new Error('not allowed');
  }
  req.record.role = roles[0];
}

const getUser = sub =>
  // The translation service does not care whether the user is there.
  findUser({ idm_id: sub }).then(user => user || (era === 'translation' ? { idm_id: sub } : user));

function v2() {
  const { Guard, strategies } = require('guard-v2');
  const guard = new Guard({
    jwksUri,
    getUser,
    authorize,
    // Made anew for each request, so that each request fetches the key set.
    strategy: () =>
      NODE_ENV === 'test'
        ? strategies.symJWT({ privateKey: JWT_SECRET, algorithm: 'HS256' })
        : strategies.auth0({ apiAudience: AUTH0_API_AUDIENCE, jwksUri }),
  });
  return (req, res, next, handler) =>
    guard.handleReq(req, res, () => handler(req, res, next)).catch(next);
}

function v1() {
  const { Enforcer, JWKSClient, strategies } = require('guard-v1');
  const strategy =
    NODE_ENV === 'test'
      ? new strategies.SymJWT({ algorithm: 'HS256', privateKey: JWT_SECRET })
      : new strategies.Auth0({
          jwksClient: new JWKSClient(jwksUri),
          apiAudience: AUTH0_API_AUDIENCE,
        });
  const enforcer = new Enforcer({ strategy, userGetter: getUser, authorizer: authorize });
  // After its 403 too: that is how it was published.
  return (req, res, next, handler) =>
    enforcer
      .handleRequest(req, res)
      .then(() => handler(req, res, next))
      .catch(next);
}

module.exports = era === 'v2' ? v2() : era === 'ingest' ? null : v1();
