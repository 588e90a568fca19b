// A service on the backends' own server package; its routes are below `api/`.

const guard = require('../guard');

const server = require('@pathcheck/safeplaces-server')({
  appFolder: __dirname,
  wrapAsync: (handler, validate = false) => (req, res, next) =>
    validate ? guard(req, res, next, handler) : handler(req, res, next).catch(next),
});
server.setupAndCreate();

module.exports = server;
