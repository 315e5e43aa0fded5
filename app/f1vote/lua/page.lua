-- The standing of a poll and the votes of some receipts, of one moment.
-- ARGV: poll, receipts ('A;B;…').
-- Returns lines: Redis's time; 'field=value;…' of meta; 'code=points;…'; each receipt's vote.
local base = 'poll:' .. ARGV[1] .. ':'
local function joined(key)
  local fields, pairs_ = redis.call('HGETALL', key), {}
  for at = 1, #fields, 2 do pairs_[#pairs_ + 1] = fields[at] .. '=' .. fields[at + 1] end
  return table.concat(pairs_, ';')
end
local time = redis.call('TIME')
local answer = {
  string.format('%d.%06d', time[1], time[2]), joined(base .. 'meta'), joined(base .. 'tally'),
}
for receipt in string.gmatch(ARGV[2], '[^;]+') do
  local bucket, field = place_of(receipt)
  answer[#answer + 1] = redis.call('HGET', base .. 'votes:' .. bucket, field) or ''
end
return table.concat(answer, '\n')
