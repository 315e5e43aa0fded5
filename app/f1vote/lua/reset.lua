-- Every vote of a poll is removed, and what was counted of it. Admitted receipts stay admitted, and
-- the organiser's word stands.
-- ARGV: poll. Returns how many votes there were.
local base = 'poll:' .. ARGV[1] .. ':'
local ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
local voters = tonumber(redis.call('HGET', base .. 'meta', 'voters') or 0)
for high in string.gmatch(ALPHABET, '.') do
  for middle in string.gmatch(ALPHABET, '.') do
    for low in string.gmatch(ALPHABET, '.') do
      redis.call('UNLINK', base .. 'votes:' .. high .. middle .. low)
    end
  end
end
redis.call('UNLINK', base .. 'tally', base .. 'recount')
redis.call('HDEL', base .. 'meta', 'voters', 'points')
redis.call('HINCRBY', base .. 'meta', 'version', 1)
redis.call('PUBLISH', 'f1:changed', ARGV[1])
return voters
