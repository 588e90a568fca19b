// The routes of each service, and by the service's own policy who may use them:
// `null` for everybody.

const tracer = ['contact_tracer', 'admin', 'super_admin'];
const admin = ['admin', 'super_admin'];
const superAdmin = ['super_admin'];

const backend = [
  ['get', '/health', null],
  ['get', '/organization', tracer],
  ['get', '/organization/configuration', tracer],
  ['put', '/organization/configuration', admin],
  ['post', '/organization/case', tracer],
  ['get', '/organization/cases', tracer],
  ['post', '/access-code', tracer],
  ['put', '/case', tracer],
  ['post', '/case/consent-to-publishing', tracer],
  ['post', '/case/stage', tracer],
  ['post', '/case/delete', tracer],
  ['post', '/cases/publish', admin],
];

const users = [
  ['get', '/auth/users/reflect', superAdmin],
  ...['list', 'get', 'create', 'delete', 'assign-role', 'reset-mfa', 'reset-password'].map(
    action => ['post', `/auth/users/${action}`, superAdmin],
  ),
];

const points = [
  ['post', '/case/points', tracer],
  ['post', '/cases/points', tracer],
  ['post', '/case/points/ingest', tracer],
  ['post', '/case/points/delete', tracer],
  ['post', '/case/point', tracer],
  ['put', '/case/point', tracer],
  ['put', '/case/points', tracer],
];

const ingest = [
  ['get', '/health', null],
  ['get', '/organization/configuration', null],
  ['post', '/access-code/valid', null],
  ['post', '/consent', null],
  ['post', '/upload', null],
];

module.exports = {
  v1: [...backend, ...points],
  v2: [...backend, ...users],
  translation: points,
  ldap: [...backend, ...points, ['post', '/case/point/delete', tracer]],
  ingest,
};
