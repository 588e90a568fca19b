module.exports = require('./server').getTestingServer();
